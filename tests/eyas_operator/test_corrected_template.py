"""A pod that never ran is made again when the spec says something else of it; one that runs is left alone."""

from typing import Any

import pytest

from eyas_operator.api.parse import parse
from eyas_operator.api.rules import template_digest
from eyas_operator.names import Role
from support.model_cluster import ModelCluster
from support.operator_world import a_body

WRONG = {"spec": {"containers": [{"name": "main", "image": "no/such:image"}]}}
RIGHT = {"spec": {"containers": [{"name": "main", "image": "a/good:image"}]}}


def pulling(cluster: ModelCluster, *pods: str) -> None:
    """The kubelet cannot pull their image."""
    for name in pods:
        waiting = {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
        cluster.pod(name).status = {"phase": "Pending", "stuck": True, "containerStatuses": [waiting]}


def image_of(cluster: ModelCluster, pod: str) -> str:
    image: str = cluster.pod(pod).manifest["spec"]["containers"][0]["image"]
    return image


def test_gang_that_waits_for_a_wrong_image_is_made_again_when_the_image_is_corrected() -> None:
    gang = {"replicas": 2, "processesPerPod": 2}
    cluster = ModelCluster(a_body(consumers=gang | {"template": WRONG}))
    cluster.reconcile()
    cluster.reconcile()
    pulling(cluster, "consumer-0-a1", "consumer-1-a1")
    cluster.passes(3)
    assert cluster.status.attempt == 1, "waiting is no failure"
    cluster.edit(consumers=gang | {"template": RIGHT})
    cluster.passes(4)
    assert cluster.status.attempt == 2
    assert cluster.names_of("consumer") == ["consumer-0-a2", "consumer-1-a2"]
    assert image_of(cluster, "consumer-0-a2") == "a/good:image"
    assert [(it.klass, it.counted) for it in cluster.status.incidents] == [("TemplateChanged", False)]
    assert all(unit.restarts_without_progress == 0 for unit in cluster.status.units)


def test_only_the_producer_that_waits_is_made_again() -> None:
    cluster = ModelCluster(a_body(producers={"replicas": 2, "template": WRONG}))
    cluster.passes(2)
    pulling(cluster, "producer-1-o1")
    cluster.passes(2)
    cluster.edit(producers={"replicas": 2, "template": RIGHT})
    cluster.passes(4)
    assert cluster.names_of("producer") == ["producer-0-o1", "producer-1-o2"]
    assert image_of(cluster, "producer-1-o2") == "a/good:image"


def test_a_change_of_width_makes_no_waiting_pod_again() -> None:
    cluster = ModelCluster()
    cluster.passes(2)
    pulling(cluster, "producer-1-o1")
    cluster.edit(producers={"replicas": 3})
    cluster.passes(4)
    assert cluster.names_of("producer") == ["producer-0-o1", "producer-1-o1", "producer-2-o1"]


@pytest.mark.parametrize(
    "change",
    [{"producers": {"replicas": 2, "gpus": 1}}, {"fabric": {"mode": "DevicePlugin"}}],
    ids=["gpus", "fabric"],
)
def test_whatever_shapes_a_pod_is_in_its_digest(change: dict[str, Any]) -> None:
    def digest(body: dict[str, Any]) -> str:
        return template_digest(parse(body).spec, Role.PRODUCER)

    assert digest(a_body(**change)) != digest(a_body())
    assert digest(a_body(producers={"replicas": 2, "gpus": 0})) == digest(a_body()), "a default said aloud"
