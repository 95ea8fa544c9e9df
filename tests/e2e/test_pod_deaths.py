"""Every pod of a job killed in every way: the job completes with the weights of the run that nobody touched.

Each test names, after "Catches:", the change of ours that it exists to notice.
"""

from collections.abc import Callable
from typing import Any

import pytest

from support.kubectl import Kubectl
from support.pod_drill import drill, drilled, replaced, seen

pytestmark = pytest.mark.e2e
Weights = Callable[[dict[str, Any]], str]


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


def test_a_deleted_consumer_lets_the_gang_write_a_checkpoint_first(kubectl: Kubectl, weights: str) -> None:
    """Catches: a drain that loses the steps since the last checkpoint, or that counts against the budget."""
    with drilled(kubectl, drill("delete-consumer")) as job:
        job.training()
        job.delete(job.pod("consumer", 1))
        status = job.recovered(weights)
    incident = replaced(status, "consumers", "PodDeleted")
    assert (incident["counted"], incident["windowsReplayed"]) == (False, 0)
    assert (status["attempt"], status["restarts"]) == (2, 1)
