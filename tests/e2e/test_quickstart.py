"""Real torch on the cluster: a job trains to its end, and a killed one ends with the same weights."""

import pytest

from support.cluster_job import applied, quickstart
from support.kubectl import Kubectl

pytestmark = pytest.mark.e2e

SHORT = {"data.maxLength": 64, "training.maxSteps": 12, "training.checkpoint.everySteps": 3, "evaluation": None}
"""A dozen steps: enough for checkpoints on both sides of a kill."""


@pytest.fixture(scope="module")
def undisturbed(kubectl: Kubectl) -> str:
    """The weights of the run that nobody touched."""
    with applied(kubectl, quickstart("undisturbed", **SHORT)) as job:
        status = job.complete()
    assert (status["attempt"], status["restarts"], status["incidents"]) == (1, 0, [])
    assert status["progress"]["step"] == 12
    weights: str = status["result"]["weightsSha256"]
    return weights


def test_a_job_trains_to_complete(undisturbed: str) -> None:
    assert len(undisturbed) == 64


def test_a_deleted_consumer_changes_no_bit(kubectl: Kubectl, undisturbed: str) -> None:
    with applied(kubectl, quickstart("consumer-deleted", **SHORT)) as job:
        job.wait_for_step(4)
        victim = job.pods("consumer")[0]["metadata"]["name"]
        kubectl.run("delete", "pod", victim, "--force", "--grace-period=0")
        status = job.complete()
    assert status["attempt"] == 2
    assert [incident["unit"] for incident in status["incidents"]], "a restart without an incident"
    assert status["result"]["weightsSha256"] == undisturbed
