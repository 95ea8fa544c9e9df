"""Nodes drained under a running job: nobody is asked, no step is lost, and no budget is touched.

These tests disturb whole nodes: nothing else may run on the cluster meanwhile.
"""

from collections.abc import Callable
from typing import Any

import pytest

from support.cluster_nodes import drained, open_place, place, placed, slow, workers
from support.kubectl import Kubectl
from support.pod_drill import drill, drilled, replaced, seen
from support.pod_history import pod_history

pytestmark = [pytest.mark.e2e, pytest.mark.exclusive]
Weights = Callable[[dict[str, Any]], str]


def test_a_drained_node_lets_the_gang_stop_at_a_boundary_and_loses_no_step(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    """Catches: a gang killed in the middle of a window, a drain that counts against the budget or that the budgets
    for disruptions do not hold back, and pods that come back to the cordoned node."""
    name = "drain-node"
    node = workers(kubectl)[0]
    weights = undisturbed(drill("undisturbed"))
    body = placed(drill(name, **{"producers.replicas": 2}), "consumers", "producers")
    with place(kubectl, name, node), drilled(kubectl, body) as job, pod_history(kubectl, name) as history:
        job.training()
        open_place(kubectl, name)
        with drained(kubectl, node, f"--pod-selector=eyas.dev/job-name={name},eyas.dev/role in (consumer,producer)"):
            status = job.recovered(weights)
        pods = history.last().values()
        codes = history.exit_codes("consumer")
    assert (status["attempt"], status["strikes"]) == (2, [])
    incident = replaced(status, "consumers", "Disrupted")
    assert (incident["counted"], incident["windowsReplayed"], incident["node"]) == (False, 0, node)
    assert {code for pod, code in codes.items() if pod.endswith("-a1")} == {75}, codes
    assert len(codes) == 4, codes
    elsewhere = [pod["spec"]["nodeName"] for pod in pods if pod["metadata"]["name"].endswith(("-a2", "-o2"))]
    assert len(elsewhere) == 4, elsewhere
    assert node not in elsewhere
    # Whether each captured something afterwards is open: one of the two is enough for what is left.
    away = [it for it in status["incidents"] if it["unit"].startswith("producer-")]
    first, second = sorted(away, key=lambda it: it["detectedTime"])
    assert (first["class"], second["class"]) == ("Disrupted", "Disrupted")
    assert {first["unit"], second["unit"]} == {"producer-0", "producer-1"}
    assert first["replacedTime"], first
    assert first["replacedTime"] <= second["detectedTime"], "both producers were away at the same time"


def test_a_node_drained_with_all_on_it_moves_the_metadata_service_and_its_volume(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    """Catches: a volume that can move but is given up, and an operator that does not outlive its own eviction."""
    name = "drain-metadata"
    weights = undisturbed(drill("undisturbed"))
    body = slow(drill(name, **{"volumes.metadata.storageClassName": "shared"}), 0.3)
    with drilled(kubectl, body) as job:
        job.training()
        node = str(job.pods("metadata")[0]["spec"]["nodeName"])
        with drained(kubectl, node, *_all_but_the_cluster(kubectl, node)):
            seen(lambda: job.incidents("metadata"), "the end of the metadata pod")
            status = job.recovered(weights)
    (klass,) = [it["class"] for it in status["incidents"] if it["unit"] == "metadata"]
    incident = replaced(status, "metadata", klass)
    # Both copies of the operator may have been sent away with it: then nobody saw more than that the pod was gone.
    assert (klass, incident["node"]) in (("Disrupted", node), ("PodDeleted", ""))
    assert not incident["counted"]
    assert status["storeEpoch"] == 1, "the volume moves with its pod: nothing was lost"


def _all_but_the_cluster(kubectl: Kubectl, node: str) -> tuple[str, ...]:
    """Everything of ours, the operator too; on the control plane DNS and the volumes' provisioner stay."""
    return () if node in workers(kubectl) else ("--pod-selector=app.kubernetes.io/name=eyas",)
