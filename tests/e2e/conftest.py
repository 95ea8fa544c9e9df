"""The test cluster, as `make e2e-up` left it; these tests never make one themselves."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.cluster_job import applied
from support.kubectl import Kubectl, kubeconfig
from support.provisioner import provisioner_watched

SHAPING = ("mode", "target", "data", "draft", "training", "evaluation")
"""What the weights follow from; neither widths nor stores nor kills are among it."""


@pytest.fixture(scope="session")
def kubectl() -> Iterator[Kubectl]:
    """`kubectl` in the namespace of the tests, whose claims get their volumes."""
    config = kubeconfig()
    assert config.is_file(), f"no test cluster: {config} is not there; run make e2e-up"
    found = Kubectl(config)
    with provisioner_watched(found):
        yield found


@pytest.fixture(scope="session")
def undisturbed(kubectl: Kubectl) -> Callable[[dict[str, Any]], str]:
    """The weights that a job ends with when nobody touches it: one run for all jobs that train the same."""
    known: dict[str, str] = {}

    def weights(body: dict[str, Any]) -> str:
        shape = json.dumps({key: body["spec"].get(key) for key in SHAPING}, sort_keys=True)
        key = hashlib.sha256(shape.encode()).hexdigest()[:8]
        if key not in known:
            name = f"undisturbed-{key}-{os.getpid()}"
            alone = body | {"metadata": body["metadata"] | {"name": name}}
            with applied(kubectl, alone) as job:
                status = job.complete()
            assert (status["attempt"], status["restarts"], status["incidents"]) == (1, 0, [])
            assert status["result"]["exact"]
            known[key] = status["result"]["weightsSha256"]
        return known[key]

    return weights
