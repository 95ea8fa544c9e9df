"""A whole job in the torch-free image: the fake trainer and the fake capture, everything around them real."""

import pytest

from support.cluster_job import applied, fake
from support.kubectl import Kubectl
from support.pod_history import pod_history

pytestmark = pytest.mark.e2e


def test_a_fake_job_completes_and_says_the_same_weights_twice(kubectl: Kubectl) -> None:
    found = []
    for name in ("fake-first", "fake-second"):
        with applied(kubectl, fake(name)) as job:
            status = job.complete(300)
        assert (status["attempt"], status["incidents"]) == (1, [])
        found.append(status["result"]["weightsSha256"])
    assert found[0] == found[1]


def test_a_fake_job_runs_in_the_torch_free_image(kubectl: Kubectl) -> None:
    name = "fake-image"
    with applied(kubectl, fake(name)) as job, pod_history(kubectl, name) as pods:
        job.complete(300)
    for role in ("producer", "consumer"):
        assert {pod["spec"]["containers"][0]["image"] for _, pod in pods.versions(role)} == {"eyas-runtime:0.1.0"}
