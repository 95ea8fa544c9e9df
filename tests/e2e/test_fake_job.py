"""A whole job in the torch-free image: the fake trainer and the fake capture, everything around them real."""

import pytest

from support.cluster_job import applied, fake
from support.kubectl import Kubectl

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
    with applied(kubectl, fake("fake-image", **{"data.epochs": 4})) as job:
        job.wait_for_step(1, 300)
        images = {pod["spec"]["containers"][0]["image"] for role in ("producer", "consumer") for pod in job.pods(role)}
        assert images == {"eyas-runtime:0.1.0"}
