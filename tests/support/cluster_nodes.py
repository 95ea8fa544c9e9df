"""Nodes of the test cluster as tests disturb them: pods put on one of them, drained nodes, nodes that stop answering.

Whatever a block does to a node is undone when the block ends, however it ends.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from eyas_contract import env
from support.kubectl import CALL_SECONDS, Kubectl
from support.pod_drill import seen

CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
PLACE: Final = "eyas.dev/place"
DRAIN_SECONDS: Final = 240
API_SERVER_PORT: Final = "6443"
_SIGNAL: Final = (
    'for file in $(grep -lE "$2" /proc/[0-9]*/cgroup); do pid=${file#/proc/}; pid=${pid%/cgroup}; '
    'case $(cat "/proc/$pid/comm") in pause) ;; *) kill "-$1" "$pid" ;; esac; done 2>/dev/null; true'
)


def workers(kubectl: Kubectl) -> list[str]:
    """Nodes that the cluster itself does not need."""
    nodes = (node["metadata"] for node in kubectl.items("nodes"))
    return sorted(meta["name"] for meta in nodes if CONTROL_PLANE not in meta["labels"])


def placed(body: dict[str, Any], *roles: str) -> dict[str, Any]:
    """`body` with the pods of `roles` only on nodes that carry the job's place label (see `place`)."""
    for role in roles:
        # A copy: roles may share one template.
        template = json.loads(json.dumps(body["spec"][role]["template"]))
        template["spec"]["nodeSelector"] = {f"{PLACE}-{body['metadata']['name']}": "here"}
        body["spec"][role]["template"] = template
    return body


def slow(body: dict[str, Any], seconds: float) -> dict[str, Any]:
    """`body` with `seconds` for each sample, so that the job still trains when a node comes back."""
    for role in ("producers", "consumers"):
        template = json.loads(json.dumps(body["spec"][role]["template"]))
        for entry in template["spec"]["containers"][0]["env"]:
            if entry["name"] == env.CAPTURE:
                entry["value"] = f"fake:{seconds:g}"
        body["spec"][role]["template"] = template
    return body


@contextmanager
def place(kubectl: Kubectl, name: str, node: str) -> Iterator[None]:
    """While the block runs only `node` is the place of that job's pods, unless `open_place` is called."""
    label = f"{PLACE}-{name}"
    kubectl.run("label", "node", node, f"{label}=here")
    try:
        yield
    finally:
        kubectl.run("label", "nodes", "--all", f"{label}-")


def open_place(kubectl: Kubectl, name: str) -> None:
    """Every node is the place of that job's pods: from now on."""
    kubectl.run("label", "nodes", "--all", f"{PLACE}-{name}=here", "--overwrite")


@contextmanager
def cordoned(kubectl: Kubectl, node: str) -> Iterator[None]:
    """No new pod comes to `node` while the block runs."""
    kubectl.run("cordon", node)
    try:
        yield
    finally:
        kubectl.run("uncordon", node)


@contextmanager
def drained(kubectl: Kubectl, node: str, *flags: str) -> Iterator[str]:
    """`kubectl drain` of the node, by eviction; what it said. Uncordoned when the block ends."""
    seconds = f"--timeout={DRAIN_SECONDS}s"
    try:
        command = ("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", seconds, *flags)
        yield kubectl.run(*command, seconds=DRAIN_SECONDS + CALL_SECONDS)
    finally:
        kubectl.run("uncordon", node)


@contextmanager
def paused(kubectl: Kubectl, node: str) -> Iterator[None]:
    """The node stops at once, with every process on it, and goes on where it stopped when the block ends."""
    _docker("pause", node)
    try:
        yield
    finally:
        _docker("unpause", node)
        _well(kubectl, node)


def _well(kubectl: Kubectl, node: str) -> None:
    ready = ("wait", "--for=condition=Ready", f"node/{node}", f"--timeout={DRAIN_SECONDS}s")
    kubectl.run(*ready, seconds=DRAIN_SECONDS + CALL_SECONDS)
    # The taint goes after the condition; a pod that came in between would be sent away.
    seen(lambda: "taints" not in kubectl.get("node", node)["spec"], f"{node} is without taints")


@contextmanager
def cut_off(kubectl: Kubectl, node: str) -> Iterator[None]:
    """While the block runs `node` hears nothing of the API server: its pods stay as they are, and reach each other.

    New pods go elsewhere, as they would once the node is known to be unreachable.
    """
    rule = ("OUTPUT", "-p", "tcp", "--dport", API_SERVER_PORT, "-j", "REJECT", "--reject-with", "tcp-reset")
    try:
        with cordoned(kubectl, node):
            _docker("exec", node, "iptables", "-I", *rule)
            try:
                yield
            finally:
                _docker("exec", node, "iptables", "-D", *rule)
    finally:
        _well(kubectl, node)


def send_away(kubectl: Kubectl, pod: str) -> None:
    """What Kubernetes does to a pod of a node that was unreachable for longer than the pod tolerates."""
    told = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "a drill"}
    # Kubernetes takes back such a condition of a pod that it takes for an old one.
    told["lastTransitionTime"] = datetime.now(UTC).isoformat(timespec="seconds")
    change = json.dumps({"status": {"conditions": [told]}})
    kubectl.run("patch", "pod", pod, "--subresource=status", "--type=strategic", "-p", change)
    kubectl.run("delete", "pod", pod, "--wait=false")


def signal_container(kubectl: Kubectl, pod: str, name: str) -> None:
    """Send `KILL` or `STOP` to all of a container, from its node: nothing inside can do that to the first process."""
    found = kubectl.get("pod", pod)
    uid = found["metadata"]["uid"]
    _docker("exec", found["spec"]["nodeName"], "sh", "-c", _SIGNAL, "-", name, f"{uid}|{uid.replace('-', '_')}")


def tag_image(node: str, image: str, name: str) -> None:
    """Have the node know `image` by another `name`, too."""
    library = "docker.io/library"
    _docker("exec", node, "ctr", "-n", "k8s.io", "images", "tag", "--force", f"{library}/{image}", f"{library}/{name}")


def _docker(*arguments: str) -> None:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=CALL_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
