"""What tests against the private API server share: it serves the job's kind."""

import pytest

from eyas_operator.api.crd import crd
from support.kube_apiserver import KubeApiServer


@pytest.fixture(scope="session")
def jobs(kube: KubeApiServer) -> KubeApiServer:
    """The API server with the CustomResourceDefinition installed."""
    kube.install_crd(crd())
    return kube
