"""Settings of the whole test tree, and what is started once in a session."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from support.kube_apiserver import KubeApiServer, running

# A busy machine makes any test slow: no property is judged by its time.
settings.register_profile("eyas", deadline=None, print_blob=True)
settings.load_profile("eyas")


@pytest.fixture(scope="session")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiServer]:
    """A private API server, one in each worker; for tests that are marked `apiserver`."""
    with running(tmp_path_factory.mktemp("kube")) as server:
        yield server
