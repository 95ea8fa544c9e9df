"""Real torch on the cluster: a job trains to its end; one that lost ranks, a pod or a node ends with the same bits."""

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.cluster_http import report
from support.cluster_job import quickstart
from support.cluster_nodes import cordoned, open_place, paused, place, placed, workers
from support.kubectl import Kubectl
from support.pod_drill import drilled, replaced, seen

pytestmark = [pytest.mark.e2e, pytest.mark.exclusive]

STEPS = 20
SHORT = {"data.maxLength": 64, "training.maxSteps": STEPS, "training.checkpoint.everySteps": 3, "evaluation": None}
"""Checkpoints on both sides of each blow, and work left after it."""


@pytest.fixture(scope="module")
def weights(undisturbed: Callable[[dict[str, Any]], str]) -> str:
    """The weights of the run that nobody touched."""
    return undisturbed(quickstart("undisturbed", **SHORT))


def _trained(status: dict[str, Any], began: float) -> str:
    """Weights of a job that trained all steps, exactly."""
    sys.stdout.write(
        f"{status['progress']['step']} steps, {time.monotonic() - began:.0f} s, {status['attempt']} attempts"
    )
    assert (status["progress"]["step"], status["result"]["exact"]) == (STEPS, True)
    assert all(it["outcome"] for it in status["incidents"]), status["incidents"]
    return str(status["result"]["weightsSha256"])


def test_a_job_trains_to_complete(weights: str) -> None:
    assert len(weights) == 64


def test_killed_ranks_and_then_a_deleted_consumer_change_no_bit(kubectl: Kubectl, weights: str) -> None:
    """Catches: optimizer state, schedule or random numbers that a restart in place or in a new pod forgets."""
    began = time.monotonic()
    with drilled(kubectl, quickstart("consumer-killed", **SHORT)) as job:
        job.wait_for_step(2)
        before = report(job)["acked_step"]
        job.signal(job.pod("consumer"))
        # Asked of the service: the status may tell of it so late that nothing is left to be disturbed. One step may be
        # from between the question and the blow.
        seen(lambda: report(job)["acked_step"] >= before + 2, "a step after the kill")
        job.force_delete(job.pod("consumer"))
        status = job.complete()
    assert _trained(status, began) == weights
    assert (status["attempt"], status["restarts"]) == (2, 1)
    assert [it["class"] for it in status["incidents"] if it["unit"] == "consumers"] == ["ChildExited", "PodDeleted"]


def test_a_lost_node_changes_no_bit(kubectl: Kubectl, weights: str) -> None:
    """Catches: bits that hang on the node, and ranks of the lost one that still reach the weights when it is back.

    It stops a node: nothing else may run on the cluster meanwhile.
    """
    name, node, began = "node-lost", workers(kubectl)[-1], time.monotonic()
    body = placed(quickstart(name, **SHORT), "consumers")
    with place(kubectl, name, node), drilled(kubectl, body) as job:
        with cordoned(kubectl, node):
            seen(lambda: any(pod["spec"].get("nodeName") for pod in job.pods("metadata")), "the service has a node")
        job.wait_for_step(2)
        open_place(kubectl, name)
        with paused(kubectl, node):
            job.attempt(2)
            seen(lambda: replaced_time(job.incidents("consumers")), "the ranks run elsewhere")
        status = job.complete()
    assert _trained(status, began) == weights
    incident = replaced(status, "consumers", "NodeLost")
    assert (incident["node"], incident["counted"]) == (node, False)


def replaced_time(incidents: list[dict[str, Any]]) -> str:
    """When the first of them was made good; empty before."""
    return str(incidents[0]["replacedTime"]) if incidents else ""
