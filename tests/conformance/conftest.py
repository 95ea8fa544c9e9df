"""Every adapter of a port, for the one suite that all of them pass."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from eyas_contract.ids import JobUid
from eyas_runtime.features.blobs.memory import MemoryBlobStore, MemoryPool
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.features.blobs.shared_dir import SharedDirBlobStore
from support.backends import Backend
from support.keys import new_job
from support.metadata_stores import KINDS, Stores, stores_of
from support.mooncake_pool import Pool, running_pool

BACKENDS = ("memory", "shared_dir", "mooncake")


@pytest.fixture(scope="session")
def mooncake_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with running_pool(tmp_path_factory.mktemp("mooncake")) as pool:
        yield pool


@pytest.fixture(scope="session")
def mooncake_clients(mooncake_pool: Pool) -> list[BlobStore]:
    return [mooncake_pool.client(), mooncake_pool.client()]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made = _backend(request.param, request, tmp_path)
    yield made
    made.close()


def _backend(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if name == "memory":
        pool = MemoryPool()
        return Backend(name, lambda: MemoryBlobStore(pool))
    if name == "shared_dir":
        return Backend(name, lambda: SharedDirBlobStore(tmp_path))
    mooncake: Pool = request.getfixturevalue("mooncake_pool")
    return Backend(name, mooncake.client, request.getfixturevalue("mooncake_clients"))


@pytest.fixture
def blobs(backend: Backend) -> BlobStore:
    return backend.client()


@pytest.fixture
def job_uid() -> JobUid:
    return new_job()


@pytest.fixture(params=KINDS)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    made = stores_of(request.param, tmp_path)
    yield made
    made.close()
