"""A whole job in the torch-free image: the fake trainer and the fake capture, everything around them real."""

from contextlib import ExitStack

import pytest

from support.cluster_job import applied, fake
from support.kubectl import Kubectl
from support.pod_history import pod_history

pytestmark = pytest.mark.e2e


def test_two_fake_jobs_complete_in_the_torch_free_image_and_say_the_same_weights(kubectl: Kubectl) -> None:
    """Catches: anything that one job has of the other, side by side, and an image that the trainer needs not be in."""
    names = ("fake-first", "fake-second")
    with ExitStack() as stack:
        jobs = [stack.enter_context(applied(kubectl, fake(name))) for name in names]
        pods = [stack.enter_context(pod_history(kubectl, name)) for name in names]
        told = [job.complete(300) for job in jobs]
    assert [(it["attempt"], it["incidents"]) for it in told] == [(1, [])] * 2
    assert len({it["result"]["weightsSha256"] for it in told}) == 1
    for role in ("producer", "consumer"):
        images = {pod["spec"]["containers"][0]["image"] for seen in pods for _, pod in seen.versions(role)}
        assert images == {"eyas-runtime:0.1.0"}
