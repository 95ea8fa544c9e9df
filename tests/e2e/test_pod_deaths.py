"""Every pod of a job killed in every way: the job completes with the weights of the run that nobody touched.

Each test names, after "Catches:", the change of ours that it exists to notice.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from support.kubectl import Kubectl
from support.pod_drill import MOONCAKE, drill, drilled, gated, replaced, seen

pytestmark = pytest.mark.e2e
Weights = Callable[[dict[str, Any]], str]

SERVING = {"metadata": "metadata", "store-master": "store-master", "store-node": "store-node-0"}
"""Unit of each role that serves."""


@pytest.fixture(scope="session")
def weights(undisturbed: Weights) -> str:
    """What every drill must end with."""
    return undisturbed(drill("undisturbed"))


def test_a_killed_rank_restarts_the_ranks_of_all_pods_in_place(kubectl: Kubectl, weights: str) -> None:
    """Catches: a rank restarted alone (its peers wait for ever), and a pod replaced where a process was enough."""
    with drilled(kubectl, drill("kill-rank")) as job:
        job.training()
        other = job.pod("consumer", 0)
        before = job.signal(other, "SIGCONT")
        job.signal(job.pod("consumer", 1))
        seen(lambda: job.signal(other, "SIGCONT") != before, "the other pod's rank was restarted, too")
        status = job.recovered(weights)
    assert (status["attempt"], status["restarts"]) == (1, 0)
    told = [it for it in status["incidents"] if it["class"] == "ChildExited"]
    assert [(it["unit"], it["source"], it["outcome"]) for it in told] == [("consumers", "Service", "Recovered")]


def test_a_killed_capture_is_restarted_in_place(kubectl: Kubectl, weights: str) -> None:
    """Catches: a supervisor that leaves with its child, and leases of the dead that are not given back."""
    with drilled(kubectl, drill("kill-capture")) as job:
        job.training()
        job.signal(job.pod("producer"))
        status = job.recovered(weights)
    assert (status["attempt"], status["restarts"]) == (1, 0)


def test_a_child_killed_again_and_again_costs_the_pod_and_then_the_attempt(kubectl: Kubectl, weights: str) -> None:
    """Catches: restarts in place without a bound, and a spent pod that nobody replaces."""
    changes = {"recovery.restartsInPlace": 2, "consumers.replicas": 1}
    with gated(kubectl, "kill-again", "producers", **changes) as (job, release):
        pod = job.pod("consumer")
        job.signal(pod)
        # An answer that was lost on its way leaves open which child a blow has hit: they fall until the pod is gone.
        seen(lambda: not job.hit(pod, "SIGKILL") and int(job.status()["attempt"]) == 2, "the next attempt")
        incident = job.incidents("consumers")[0]
        assert (incident["class"], incident["counted"]) == ("Crash", True)
        assert "2 restarts in place without progress" in incident["message"]
        release()
        status = job.recovered(weights)
    assert (status["attempt"], status["restarts"]) == (2, 1), status["incidents"]


def test_a_deleted_producer_is_replaced_under_the_next_ordinal(kubectl: Kubectl, weights: str) -> None:
    """Catches: waiting for the old pod to go, an ordinal used twice, a deletion counted against the budget."""
    with drilled(kubectl, drill("delete-producer")) as job:
        job.training()
        job.delete(job.pod("producer"))
        status = job.recovered(weights)
    incident = replaced(status, "producer-0", "PodDeleted")
    assert (incident["serial"], incident["counted"]) == (1, False)
    assert (status["attempt"], status["restarts"]) == (1, 1)


def test_a_deleted_consumer_lets_the_gang_write_a_checkpoint_first(kubectl: Kubectl, weights: str) -> None:
    """Catches: a drain that loses the steps since the last checkpoint, or that counts against the budget."""
    with drilled(kubectl, drill("delete-consumer")) as job:
        job.training()
        job.delete(job.pod("consumer", 1))
        status = job.recovered(weights)
    incident = replaced(status, "consumers", "PodDeleted")
    assert (incident["counted"], incident["windowsReplayed"]) == (False, 0)
    assert (status["attempt"], status["restarts"]) == (2, 1)


def test_a_consumer_deleted_by_force_is_fenced_and_the_whole_gang_is_new(kubectl: Kubectl, weights: str) -> None:
    """Catches: one member replaced alone, and overlapping attempts that both train (the old one may still run)."""
    with drilled(kubectl, drill("force-consumer")) as job:
        job.training()
        job.force_delete(job.pod("consumer", 1))
        job.attempt(2)
        seen(lambda: len([pod for pod in job.pods("consumer") if _attempt(pod) == "2"]) == 2, "two pods of attempt 2")
        status = job.recovered(weights)
    replaced(status, "consumers", "PodDeleted")
    assert (status["attempt"], status["restarts"]) == (2, 1)


def _attempt(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["labels"]["eyas.dev/attempt"])


@pytest.mark.parametrize("role", SERVING)
def test_a_deleted_serving_pod_loses_no_sample(kubectl: Kubectl, weights: str, role: str) -> None:
    """Catches: an old service that is still spoken to, and features of a dead store that are waited for for ever."""
    with drilled(kubectl, drill(f"delete-{role}", **({} if role == "metadata" else MOONCAKE))) as job:
        job.training()
        job.delete(job.pod(role), "--grace-period=1")
        status = job.recovered(weights)
    incident = replaced(status, SERVING[role], "PodDeleted")
    assert not incident["counted"]
    assert status["storeEpoch"] == 1, "the claim was there all the time"


def test_a_metadata_pod_and_a_producer_that_go_together_cost_no_sample(kubectl: Kubectl, weights: str) -> None:
    """Catches: a producer whose newer ordinal is lost with the service, and leases of the dead that never end."""
    with drilled(kubectl, drill("delete-two")) as job:
        job.training()
        job.delete(job.pod("metadata"), "--grace-period=1")
        job.force_delete(job.pod("producer"))
        status = job.recovered(weights)
    replaced(status, "producer-0", "PodDeleted")
    replaced(status, "metadata", "PodDeleted")


def test_an_evicted_consumer_is_an_uncounted_disruption(kubectl: Kubectl, weights: str) -> None:
    """Catches: evictions that spend the budget, and a budget of disruptions that never lets a drain through."""
    with drilled(kubectl, drill("evict-consumer")) as job:
        job.training()
        job.evict(job.pod("consumer", 0))
        status = job.recovered(weights)
    incident = replaced(status, "consumers", "Disrupted")
    assert not incident["counted"]
    assert incident["node"]
    assert (status["attempt"], status["restarts"]) == (2, 1)


def test_a_pod_stuck_in_terminating_is_not_waited_for(kubectl: Kubectl, weights: str) -> None:
    """Catches: a new attempt that waits for the old one's objects, and ready counts that include them."""
    with drilled(kubectl, drill("stuck")) as job:
        job.training()
        pod = job.pod("consumer", 1)
        held = {"metadata": {"finalizers": ["eyas.dev/drill"]}}
        kubectl.run("patch", "pod", pod, "--type=merge", "-p", json.dumps(held))
        try:
            job.delete(pod, "--grace-period=1")
            status = job.complete()
            assert kubectl.get("pod", pod)["metadata"]["deletionTimestamp"], "the drill held nothing"
            assert status["attempt"] == 2
            roles = {role["name"]: role for role in status["roles"]}
            assert roles["consumer"]["ready"] <= roles["consumer"]["desired"]
        finally:
            free = {"metadata": {"finalizers": None}}
            kubectl.run("patch", "pod", pod, "--type=merge", "-p", json.dumps(free))
        job.recovered(weights)
    replaced(status, "consumers", "PodDeleted")
