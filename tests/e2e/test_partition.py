"""A node that the cluster has lost, while everything on it goes on: two metadata services and two gangs at once.

The node hears nothing of the API server any more, but its pods still reach the store that the job uses. What Kubernetes
does about such a node after a minute and a half is done by hand, at once. Nothing else may run meanwhile.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from support.cluster_drill import wait_for
from support.cluster_http import PORT, ask, token_file
from support.cluster_nodes import cordoned, cut_off, open_place, place, placed, send_away, workers
from support.cluster_pool import shared_pool
from support.kubectl import Kubectl
from support.pod_drill import STEPS, Drill, drill, drilled, replaced, seen

pytestmark = [pytest.mark.e2e, pytest.mark.exclusive]
Weights = Callable[[dict[str, Any]], str]


def test_hazard_33_a_metadata_service_on_a_partitioned_node_harms_nothing_of_its_successor(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    """Catches: a sweep that takes keys of a newer epoch for orphans, callers that stay with the old service as long as
    it answers, and checkpoints of the old gang that the new service believes."""
    here, there = workers(kubectl)
    weights = undisturbed(drill("undisturbed"))
    with ExitStack() as stack:
        with cordoned(kubectl, here):
            pool = stack.enter_context(shared_pool(kubectl))
        stack.enter_context(place(kubectl, "hazard-33", here))
        job = stack.enter_context(drilled(kubectl, _body(pool.store, there)))
        wait_for(job, "a checkpoint", lambda it: it["checkpoint"]["step"] >= 2)
        old = _url(kubectl, job.pod("metadata"))
        with cut_off(kubectl, here):
            open_place(kubectl, job.name)
            for role in ("consumer", "metadata"):
                send_away(kubectl, job.pod(role))
            wait_for(job, "a checkpoint of the next epoch", lambda it: ".a2." in it["checkpoint"]["directory"])
            asker = job.pod("consumer", number=2)
            swept = _sweeps(job, old)
            seen(lambda: _sweeps(job, old) > swept, "a sweep of the old service, which saw keys of the new one")
            _unharmed(job, asker)
            assert _told(job, asker, old, "status")["store_epoch"] == 1, "it has ended: nothing is shown"
            assert job.status()["progress"]["step"] < STEPS, "it was over before anything was shown"
            job.complete(300)
        status = job.recovered(weights)
    assert status["storeEpoch"] == 2
    replaced(status, "metadata", "MetadataLost")
    incident = replaced(status, "consumers", "NodeLost")
    assert (incident["counted"], incident["node"], status["attempt"]) == (False, here, 2)


def _body(store: dict[str, Any], there: str) -> dict[str, Any]:
    """Metadata service and ranks where the job's place is, the captures `there`."""
    changes: dict[str, Any] = {"consumers.replicas": 1, "services.template": {"spec": {}}, "store": store}
    changes |= {"volumes.metadata.storageClassName": "standard", "recovery.metadataLossSeconds": 5}
    # The old service sweeps once a minute; at this pace the job has two minutes left when its next epoch begins.
    body = placed(drill("hazard-33", seconds=1.0, **changes), "services", "consumers")
    body["spec"]["producers"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": there}
    body["spec"]["consumers"]["template"]["spec"]["terminationGracePeriodSeconds"] = 10
    return body


def _unharmed(job: Drill, asker: str) -> None:
    """The new service misses nothing that was captured for it, and knows no checkpoint of the old gang beyond its own
    beginning."""
    url = _url(job.kubectl, _newest(job))
    told = _told(job, asker, url, "status")
    assert (told["store_epoch"], told["samples_lost"], told["samples_recaptured"]) == (2, 0, 0), told
    known = _told(job, asker, url, "checkpoints")["known"]
    steps = {epoch: [it["step"] for it in known if it["store_epoch"] == epoch] for epoch in (1, 2)}
    assert steps[2]
    assert max(steps[1], default=0) < min(steps[2]), known


def _sweeps(job: Drill, url: str) -> float:
    """How often the service at `url` has swept; asked with the read token, which metadata pods hold."""
    pod = _newest(job)
    code, text = ask(job.kubectl, pod, f"{url}/metrics", token_file(job.kubectl, pod, "reader"))
    assert code == 200, text
    (line,) = [line for line in text.splitlines() if line.startswith("eyas_store_sweeps_total{")]
    return float(line.rpartition(" ")[2])


def _newest(job: Drill) -> str:
    """Pod of the present metadata service."""
    pods = {int(pod["metadata"]["labels"]["eyas.dev/store-epoch"]): pod for pod in job.pods("metadata")}
    return str(pods[max(pods)]["metadata"]["name"])


def _url(kubectl: Kubectl, pod: str) -> str:
    """Of the service in a pod, wherever the job's Service points."""
    return f"http://{kubectl.get('pod', pod)['status']['podIP']}:{PORT}"


def _told(job: Drill, asker: str, url: str, call: str) -> dict[str, Any]:
    """What a service answers a pod that may ask."""
    code, body = ask(job.kubectl, asker, f"{url}/v1/{call}", token_file(job.kubectl, asker, "consumer"))
    assert code == 200, body
    found: dict[str, Any] = json.loads(body)
    return found
