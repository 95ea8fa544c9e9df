"""Holders of old numbers, pods of other owners, and jobs that are over: nothing they do changes anything.

Each test names, after "Catches:", the change of ours that it exists to notice.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.cluster_operator import no_operator
from support.kubectl import Kubectl
from support.pod_drill import Drill, drill, drilled, seen

pytestmark = pytest.mark.e2e
Weights = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="session")
def weights(undisturbed: Weights) -> str:
    """What every drill must end with."""
    return undisturbed(drill("undisturbed"))


@contextmanager
def imitated(kubectl: Kubectl, pod: dict[str, Any], name: str, owner: list[dict[str, Any]]) -> Iterator[str]:
    """A pod that is in everything like `pod`, but for its name and its owners; with a copy of its configuration."""
    body = {key: copy.deepcopy(pod[key]) for key in ("apiVersion", "kind", "spec")}
    told = {key: pod["metadata"].get(key) for key in ("labels", "annotations")}
    body["metadata"] = told | {"name": name, "ownerReferences": owner}
    body["spec"].pop("nodeName", None)
    copied = f"{name}-config"
    for volume in body["spec"]["volumes"]:
        if "configMap" in volume:
            data = kubectl.get("configmap", volume["configMap"]["name"])["data"]
            volume["configMap"]["name"] = copied
            kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": copied}, "data": data})
    kubectl.apply(body)
    try:
        yield name
    finally:
        kubectl.run("delete", "pod", name, "--ignore-not-found", "--grace-period=1", "--timeout=60s", seconds=90)
        kubectl.run("delete", "configmap", copied, "--ignore-not-found")


def _exit_code(kubectl: Kubectl, pod: str) -> int | None:
    for status in kubectl.get("pod", pod)["status"].get("containerStatuses", []):
        ended = status["state"].get("terminated")
        if ended:
            return int(ended["exitCode"])
    return None


def test_a_pod_of_an_old_attempt_is_refused_and_changes_nothing(kubectl: Kubectl, weights: str) -> None:
    """Catches: attempts that only deletion separates; the old one here runs, with its token and its rank 0."""
    with drilled(kubectl, drill("old-attempt")) as job:
        old = kubectl.get("pod", job.training().pod("consumer", 0))
        job.force_delete(job.pod("consumer", 1))
        job.attempt(2)
        with imitated(kubectl, old, f"{job.name}-revenant", []) as revenant:
            code = seen(lambda: _exit_code(kubectl, revenant), "the end of the old attempt's pod")
            assert code == 86, kubectl.run("logs", revenant)
            status = job.recovered(weights)
            assert kubectl.get("pod", revenant), "a pod without our owner was deleted"
    assert (status["attempt"], status["restarts"]) == (2, 1)
    assert [it["unit"] for it in status["incidents"] if it["source"] == "Operator"] == ["consumers"]


def test_a_foreign_pod_with_our_labels_is_never_deleted_and_never_counted(kubectl: Kubectl, weights: str) -> None:
    """Catches: selection by label alone. The foreign pod has the labels of a producer that the job does not have."""
    config = kubectl.get("configmap", "kube-root-ca.crt")["metadata"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": config["name"], "uid": config["uid"], "controller": True}
    with drilled(kubectl, drill("foreign")) as job:
        pod = kubectl.get("pod", job.training().pod("producer"))
        pod["metadata"]["labels"]["eyas.dev/replica-index"] = "7"
        pod["spec"]["containers"][0]["command"] = ["python", "-c", "import signal; signal.pause()"]
        with imitated(kubectl, pod, f"{job.name}-stranger", [owner]) as stranger:
            status = job.recovered(weights)
            found = kubectl.get("pod", stranger)
            assert "deletionTimestamp" not in found["metadata"]
            kubectl.run("delete", "dtj", job.name, "--wait=true", "--timeout=60s", seconds=90)
            assert "deletionTimestamp" not in kubectl.get("pod", stranger)["metadata"]
    roles = {role["name"]: role for role in status["roles"]}
    assert roles["producer"]["ready"] <= 1
    assert status["restarts"] == 0


def test_a_pod_of_ours_with_an_old_ordinal_is_deleted(kubectl: Kubectl, weights: str) -> None:
    """Catches: pods that nobody wants but that hold a GPU, and garbage of a pass that died half-way."""
    with drilled(kubectl, drill("old-ordinal")) as job:
        pod = kubectl.get("pod", job.training().pod("producer"))
        job.force_delete(pod["metadata"]["name"])
        job.pod("producer", number=2)
        owner = pod["metadata"]["ownerReferences"]
        with imitated(kubectl, pod, pod["metadata"]["name"], owner) as again:
            seen(lambda: not kubectl.items("pods", "--field-selector", f"metadata.name={again}"), "its deletion")
            status = job.recovered(weights)
    assert (status["attempt"], status["restarts"]) == (1, 1)


@pytest.mark.exclusive
def test_a_pod_replaced_under_its_own_name_while_nobody_looked_is_not_the_old_one(
    kubectl: Kubectl, weights: str
) -> None:
    """Catches: a failure missed because a pod of the same name and number runs: the gang would wait for a dead rank.

    The operator is away while it happens, so that it sees the name again and never its absence.
    """
    with drilled(kubectl, drill("same-name")) as job:
        pod = kubectl.get("pod", job.training().pod("consumer", 1))
        with contextlib.ExitStack() as kept:
            with no_operator(kubectl):
                job.force_delete(pod["metadata"]["name"])
                owner = pod["metadata"]["ownerReferences"]
                again = kept.enter_context(imitated(kubectl, pod, pod["metadata"]["name"], owner))
                assert kubectl.get("pod", again)["metadata"]["uid"] != pod["metadata"]["uid"]
            status = job.recovered(weights)
    assert [it["outcome"] for it in status["incidents"]], "a restart without an incident"


def test_a_complete_job_is_never_resurrected(kubectl: Kubectl, weights: str) -> None:
    """Catches: an end that is derived from children. All of them are deleted, the spec asks for more, nothing comes."""
    with drilled(kubectl, drill("no-resurrection")) as job:
        before = job.recovered(weights)
        _delete_children(job)
        _asked_for_more(job, 3)
        _still_over(job, before)


def _delete_children(job: Drill) -> None:
    kinds = "services,configmaps,secrets,networkpolicies,poddisruptionbudgets,persistentvolumeclaims"
    job.kubectl.run("delete", kinds, "-l", f"eyas.dev/job-name={job.name}", "--wait=false")


def _asked_for_more(job: Drill, producers: int) -> None:
    """A new spec, until the operator says that it has seen it: after that, silence is a decision."""
    job.kubectl.run("scale", f"dtj/{job.name}", f"--replicas={producers}")
    generation = job.kubectl.get("dtj", job.name)["metadata"]["generation"]
    seen(lambda: job.status()["observedGeneration"] == generation, "the operator looked again")


def _still_over(job: Drill, before: dict[str, Any]) -> None:
    now = job.status()
    assert job.condition("Complete")["status"] == "True"
    assert now["completionTime"] == before["completionTime"]
    assert (now["attempt"], now["result"]) == (before["attempt"], before["result"])
    assert job.all_pods() == []


@pytest.mark.exclusive
def test_a_new_leader_leaves_a_complete_job_alone(kubectl: Kubectl, weights: str) -> None:
    """Catches: a decision that only lives in the memory of one operator."""
    with drilled(kubectl, drill("new-leader")) as job:
        before = job.recovered(weights)
        _delete_children(job)
        leader = kubectl.get("lease", "eyas-operator")["spec"]["holderIdentity"]
        kubectl.run("delete", "pod", leader.split("_")[0], "--wait=false")
        seen(
            lambda: kubectl.get("lease", "eyas-operator")["spec"].get("holderIdentity") not in (leader, "", None),
            "another leader",
        )
        _asked_for_more(job, 4)
        _still_over(job, before)
