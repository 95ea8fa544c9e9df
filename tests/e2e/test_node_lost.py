"""A node that stops answering, with everything on it, and comes back when nobody needs it any more.

One node is stopped once, under two jobs: of one it holds the consumers and the producers, of the other the metadata
service with a volume that cannot move. When both have replaced what they lost the node goes on where it stopped, with
pods that know nothing of what happened. Nothing else may run on the cluster meanwhile.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from support.cluster_nodes import cordoned, open_place, paused, place, placed, slow, workers
from support.kubectl import Kubectl
from support.pod_drill import Drill, drill, drilled, replaced, seen
from support.pod_history import PodHistory, pod_history

pytestmark = [pytest.mark.e2e, pytest.mark.exclusive]
Weights = Callable[[dict[str, Any]], str]
SLOW = 0.5
"""Seconds a sample of each job, so that both still train when the node comes back."""
RANKS, SERVICE = "lost-ranks", "lost-service"


@dataclass(frozen=True)
class Lost:
    """What became of one job."""

    node: str
    status: dict[str, Any]
    left_behind: list[str]
    """Pods on the stopped node when their successors trained already."""
    pods: dict[str, dict[str, Any]]
    """Every pod as it was seen last, by name without the job's stem."""
    codes: dict[str, int]


@pytest.fixture(scope="module")
def lost(kubectl: Kubectl, undisturbed: Weights) -> dict[str, Lost]:
    """Both jobs, complete with the right weights after their node went and came back."""
    weights = undisturbed(drill("undisturbed"))
    node = workers(kubectl)[-1]
    with ExitStack() as stack:
        ranks, seen_of_ranks = _ranks_on(kubectl, node, stack)
        service, seen_of_service = _service_on(kubectl, node, stack)
        ranks.training()
        service.training()
        open_place(kubectl, RANKS)
        with paused(kubectl, node):
            ranks.attempt(2)
            ranks.training()
            # At once: what the other job waits for may take longer than this one has left to train.
            ranks.delete(ranks.pod("producer", 0, number=2))
            seen(lambda: int(service.status()["storeEpoch"]) == 2, "the next store epoch")
            service.training()
            left = {job.name: _on(job, node) for job in (ranks, service)}
        return {
            job.name: Lost(
                node=node,
                status=job.recovered(weights),
                left_behind=left[job.name],
                pods={_short(name): pod for name, pod in history.last().items()},
                codes={_short(name): code for name, code in history.exit_codes("consumer").items()},
            )
            for job, history in ((ranks, seen_of_ranks), (service, seen_of_service))
        }


def _ranks_on(kubectl: Kubectl, node: str, stack: ExitStack) -> tuple[Drill, PodHistory]:
    """The job whose consumers and producers are on `node`, and nothing else of it."""
    stack.enter_context(place(kubectl, RANKS, node))
    with cordoned(kubectl, node):
        body = placed(slow(drill(RANKS, **{"producers.replicas": 2}), 2 * SLOW), "consumers", "producers")
        job = stack.enter_context(drilled(kubectl, body))
        history = stack.enter_context(pod_history(kubectl, RANKS))
        _scheduled(job, "metadata")
    return job, history


def _service_on(kubectl: Kubectl, node: str, stack: ExitStack) -> tuple[Drill, PodHistory]:
    """The job whose metadata service is on `node`, with a claim that lives there; its ranks and captures are not."""
    others = [it["metadata"]["name"] for it in kubectl.items("nodes") if it["metadata"]["name"] != node]
    for other in others:
        stack.enter_context(place(kubectl, SERVICE, other))
    volume = {"volumes.metadata.storageClassName": "standard", "recovery.metadataLossSeconds": 10}
    with ExitStack() as closed:
        for other in others:
            closed.enter_context(cordoned(kubectl, other))
        body = placed(slow(drill(SERVICE, **volume), SLOW), "consumers", "producers")
        job = stack.enter_context(drilled(kubectl, body))
        history = stack.enter_context(pod_history(kubectl, SERVICE))
        _scheduled(job, "metadata")
    return job, history


def _scheduled(job: Drill, role: str) -> None:
    seen(lambda: any(pod["spec"].get("nodeName") for pod in job.pods(role)), f"{role} of {job.name} has a node")


def _on(job: Drill, node: str) -> list[str]:
    """The job's pods on `node` that are being deleted and cannot go."""
    pods = (pod for pod in job.all_pods() if pod["spec"].get("nodeName") == node)
    return sorted(_short(pod["metadata"]["name"]) for pod in pods if pod["metadata"].get("deletionTimestamp"))


def _short(name: str) -> str:
    """`consumer-0-a1` of `lost-ranks-0123abcd-consumer-0-a1`."""
    return name.split("-", 3)[3]


def test_a_lost_node_costs_an_attempt_but_no_budget(lost: dict[str, Lost]) -> None:
    """Catches: a node's death that counts as the job's own failure, and one that is never blamed on the node."""
    status = lost[RANKS].status
    incident = replaced(status, "consumers", "NodeLost")
    assert (incident["counted"], incident["node"], status["attempt"]) == (False, lost[RANKS].node, 2)
    assert [(it["node"], it["strikes"]) for it in status["strikes"]] == [(lost[RANKS].node, 3)], "a gang, two producers"


def test_pods_that_cannot_end_are_not_waited_for(lost: dict[str, Lost]) -> None:
    """Catches: successors that wait until Terminating pods are gone: on a dead node that is never."""
    assert {"consumer-0-a1", "consumer-1-a1", "producer-0-o1", "producer-1-o1"} <= set(lost[RANKS].left_behind)
    assert "metadata-e1-o1" in lost[SERVICE].left_behind
    nodes = {name: pod["spec"].get("nodeName") for name, pod in lost[RANKS].pods.items()}
    successors = ("consumer-0-a2", "consumer-1-a2", "producer-0-o2", "producer-1-o2")
    assert all(nodes[name] not in (None, lost[RANKS].node) for name in successors), nodes


def test_ranks_that_come_back_with_their_node_are_fenced(lost: dict[str, Lost]) -> None:
    """Catches: an attempt of the past that goes on training, or that ends as if its work counted."""
    assert lost[RANKS].codes["consumer-0-a1"] not in (0, 75), lost[RANKS].codes
    assert lost[RANKS].codes["consumer-1-a1"] not in (0, 75), lost[RANKS].codes


def test_later_pods_avoid_a_node_that_failed_again_and_again(lost: dict[str, Lost]) -> None:
    """Catches: strikes that are counted and then forgotten when a pod is made."""
    pod = lost[RANKS].pods["producer-0-o3"]
    avoided = pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert avoided[0]["preference"]["matchFields"][0]["values"] == [lost[RANKS].node]
    assert pod["spec"]["nodeName"] != lost[RANKS].node


def test_hazard_05_a_metadata_node_that_dies_with_its_volume_begins_the_next_store_epoch(lost: dict[str, Lost]) -> None:
    """Catches: a job that waits for ever for a volume on a dead node, and a new database under the old number."""
    job = lost[SERVICE]
    incident = replaced(job.status, "metadata", "MetadataLost")
    assert (incident["counted"], job.status["storeEpoch"]) == (False, 2)
    nodes = {name: pod["spec"].get("nodeName") for name, pod in job.pods.items() if name.startswith("metadata-e2-")}
    assert nodes
    assert job.node not in nodes.values(), nodes
