"""Fake nodes for a private API server: kwok in place of kubelets, and Kubernetes' own scheduler.

Neither knows of the operator. What they do to pods (bind, start, give an address, finish a deletion in its own time) is
what its authors took for the behaviour of a cluster, and not what we take for it.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import yaml

from support.kube_apiserver import MERGE, KubeApiServer
from support.kube_tools import tool
from support.waiting import wait_until

SCHEDULER: Final = "fake-nodes"
"""`schedulerName` of pods that are meant to come here; those of other tests on the same server are left alone."""
POD_CIDR: Final = "127.77.0.1/16"
"""Nothing answers there, and nothing leaves this machine."""
_LABEL: Final = "type=kwok"
_VOLUMES: Final = ("VolumeBinding", "VolumeRestrictions", "VolumeZone", "NodeVolumeLimits")
"""Nobody binds claims here."""
_DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL", "--")


@contextmanager
def fake_nodes(server: KubeApiServer, folder: Path, count: int) -> Iterator[list[str]]:
    """Nodes `fake-0`, `fake-1`, ... with a scheduler; gone after the block."""
    config = server.kubeconfig("admin")
    scheduler = folder / "scheduler.yaml"
    scheduler.write_text(yaml.safe_dump({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(config), "qps": 1000, "burst": 1000},
        "leaderElection": {"leaderElect": False},
        "profiles": [
            {"schedulerName": SCHEDULER, "plugins": {"multiPoint": {"disabled": [{"name": it} for it in _VOLUMES]}}}
        ],
    }))  # fmt: skip
    kwok = [str(tool("kwok")), f"--kubeconfig={config}", f"--manage-nodes-with-label-selector={_LABEL}",
            f"--cidr={POD_CIDR}", "--node-lease-duration-seconds=40"]  # fmt: skip
    names = [f"fake-{index}" for index in range(count)]
    with ExitStack() as stack:
        stack.callback(lambda: [server.ask("DELETE", f"/api/v1/nodes/{name}") for name in names])
        for name in names:
            key, _, value = _LABEL.partition("=")
            server.must("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": {key: value}}})
        stack.enter_context(_running(kwok, folder / "kwok.log"))
        kube = [str(tool("kube-scheduler")), f"--config={scheduler}", "--secure-port=0"]
        stack.enter_context(_running(kube, folder / "scheduler.log"))
        for name in names:
            path = f"/api/v1/nodes/{name}"
            wait_until(lambda path=path: _ready(server, path), lambda: (folder / "kwok.log").read_text()[-2000:])
            # The taint of every new node, which a controller takes away that is not here.
            server.must("PATCH", path, {"spec": {"taints": None}}, content=MERGE)
        yield names


def _ready(server: KubeApiServer, path: str) -> bool:
    conditions = server.must("GET", path).get("status", {}).get("conditions", ())
    return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*_DIE_WITH_PARENT, *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={"HOME": str(log.parent), "PATH": "/usr/bin:/bin"},
        )
    try:
        yield
    finally:
        process.kill()
        process.wait(30)
