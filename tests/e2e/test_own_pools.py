"""Two jobs with Mooncake pools of their own, side by side: neither sees what the other stores or deletes."""

from typing import Any, Final

import pytest

from support.cluster_drill import Weights, drill, quick, wait_for
from support.cluster_http import report
from support.cluster_job import applied
from support.kubectl import Kubectl

pytestmark = pytest.mark.e2e
OWN_POOL: Final[dict[str, Any]] = {
    "backend": "Mooncake",
    "maxResidentBytes": "64Mi",
    "mooncake": {"protocol": "TCP", "nodes": {"replicas": 1, "segmentSize": "128Mi"}},
}


def test_hazard_29_the_end_of_one_job_takes_no_object_of_another_ones_store(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    weights = undisturbed(quick())
    with applied(kubectl, drill("hazard-29-long", seconds=0.4, store=OWN_POOL)) as long:
        with applied(kubectl, drill("hazard-29-short", seconds=0, store=OWN_POOL)) as short:
            wait_for(long, "something in its store", lambda it: it["progress"]["residentBytes"] > 0)
            ended = short.complete(300)
        assert ended["result"]["weightsSha256"] == weights
        still = wait_for(long, "a step after that", lambda it: it["progress"]["step"] > 0)
        assert still["state"] == "Running"
        told = report(long)
        assert (told["samples_lost"], told["samples_recaptured"]) == (0, 0)
        status = long.complete(300)
    assert (status["result"]["weightsSha256"], status["incidents"]) == (weights, [])
