"""The operator of the test cluster, to be killed, restarted, upgraded, removed and installed again.

Everything here puts back what it found: other tests need an operator, too.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from support.cluster_drill import condition, exact, wait_for, wait_until
from support.cluster_job import ClusterJob
from support.cluster_nodes import tag_image
from support.kube_tools import tool
from support.kubectl import NAMESPACE, Kubectl, kubeconfig
from support.pod_history import PodHistory

OPERATOR: Final = "eyas-operator"
PODS: Final = "app.kubernetes.io/name=eyas,app.kubernetes.io/component=operator"
RELEASE: Final = "eyas"
READY_SECONDS: Final = 180
CHART: Final = Path(__file__).parents[2] / "charts" / "eyas"


def helm(*arguments: str) -> str:
    """One run of Helm against the test cluster."""
    where = ("--kubeconfig", str(kubeconfig()), "--namespace", NAMESPACE)
    done = subprocess.run(
        [str(tool("helm")), *arguments, *where], capture_output=True, text=True, timeout=READY_SECONDS + 30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def upgrade(*values: str, chart: Path = CHART) -> None:
    """`helm upgrade` of the release to `chart` with its present values and these (`name=value`)."""
    given = [argument for value in values for argument in ("--set", value)]
    helm("upgrade", RELEASE, str(chart), "--reuse-values", "--wait", "--timeout", f"{READY_SECONDS}s", *given)


def earlier_chart(kubectl: Kubectl, folder: Path, version: str, *, lacks: str) -> Path:
    """Package of an earlier version: its definition lacks a field of the spec, its images have tags of their own."""
    copy = shutil.copytree(CHART, folder / "chart")
    about, definition = copy / "Chart.yaml", copy / "files" / "crd.yaml"
    told = yaml.safe_load(about.read_text())
    present, told["version"], told["appVersion"] = told["appVersion"], version, version
    about.write_text(yaml.safe_dump(told))
    crd = yaml.safe_load(definition.read_text())
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][lacks]
    definition.write_text(yaml.safe_dump(crd))
    helm("package", str(copy), "--destination", str(folder))
    for node in kubectl.items("nodes"):
        for image in ("eyas-operator", "eyas-runtime"):
            tag_image(node["metadata"]["name"], f"{image}:{present}", f"{image}:{version}")
    return folder / f"eyas-{version}.tgz"


@contextmanager
def uninstalled() -> Iterator[None]:
    """The chart is not installed inside the block, and is afterwards, with the values that it had."""
    values = helm("get", "values", RELEASE, "--output", "json")
    helm("uninstall", RELEASE, "--wait", "--timeout", f"{READY_SECONDS}s")
    try:
        yield
    finally:
        given = subprocess.run(
            [
                *(str(tool("helm")), "install", RELEASE, str(CHART), "--values", "-", "--wait"),
                *("--timeout", f"{READY_SECONDS}s", "--kubeconfig", str(kubeconfig()), "--namespace", NAMESPACE),
            ],
            input=values, capture_output=True, text=True, timeout=READY_SECONDS + 30, check=False,
        )  # fmt: skip
        assert given.returncode == 0, given.stderr


def ready(kubectl: Kubectl) -> None:
    """Wait until every copy is ready."""
    status = ("rollout", "status", f"deployment/{OPERATOR}", f"--timeout={READY_SECONDS}s")
    kubectl.run(*status, seconds=READY_SECONDS + 10)


def leader(kubectl: Kubectl) -> str:
    """Pod that holds the Lease."""
    holder: str = kubectl.get("lease", OPERATOR)["spec"]["holderIdentity"]
    names: list[str] = [pod["metadata"]["name"] for pod in kubectl.items("pods", "-l", PODS)]
    return next(name for name in names if holder.startswith(name))


@contextmanager
def no_operator(kubectl: Kubectl) -> Iterator[None]:
    """Every copy killed at once and none made again inside the block; as before afterwards."""
    copies = kubectl.get("deployment", OPERATOR)["spec"]["replicas"]
    kubectl.run("scale", "deployment", OPERATOR, "--replicas=0")
    try:
        kubectl.run("delete", "pods", "-l", PODS, "--force", "--grace-period=0")
        wait_until("no copy of the operator", lambda: not kubectl.items("pods", "-l", PODS))
        yield
    finally:
        kubectl.run("scale", "deployment", OPERATOR, f"--replicas={copies}")
        ready(kubectl)


def running(job: ClusterJob) -> None:
    """Wait until the job trains, with every pod there."""
    wait_for(job, "a step", lambda it: it["progress"]["step"] >= 1 and condition(it, "Ready")["status"] == "True")


def assert_undisturbed(status: dict[str, Any], pods: PodHistory, weights: str) -> None:
    """No pod was replaced, none made twice, and the weights are those of a run that nobody touched."""
    assert status["result"]["weightsSha256"] == weights
    assert (status["attempt"], status["restarts"], status["storeEpoch"]) == (1, 0, 1)
    assert [it for it in status["incidents"] if it["source"] == "Operator"] == []
    assert exact(status) == ("True", "NoDeviation")
    assert sorted(name.split("-", 3)[-1] for name in pods.uids().values()) == [
        "consumer-0-a1", "metadata-e1-o1", "producer-0-o1",
    ]  # fmt: skip
