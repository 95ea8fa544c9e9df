"""The test cluster, as `make e2e-up` left it; these tests never make one themselves."""

import pytest

from support.kubectl import Kubectl, kubeconfig


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """`kubectl` in the namespace of the tests."""
    config = kubeconfig()
    assert config.is_file(), f"no test cluster: {config} is not there; run make e2e-up"
    return Kubectl(config)
