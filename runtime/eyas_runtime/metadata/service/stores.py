"""Opens the two stores of the metadata role: the database, in the store's thread, and the pool, in the sweeper's."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from eyas_contract import env
from eyas_contract.config import JobConfig
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.features.config import StoreConfig, open_blobs
from eyas_runtime.metadata.port import MetadataStore
from eyas_runtime.metadata.service.job import facts_of
from eyas_runtime.metadata.service.settings import Settings
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore


def store_opener(settings: Settings) -> Callable[[], MetadataStore]:
    """Opens the database when called."""
    return lambda: SQLiteMetadataStore(settings.database, facts_of(settings.config))


def blobs_opener(settings: Settings) -> Callable[[], BlobStore | None]:
    """Opens the pool when called; None where the pool is memory of another process, which frees it by itself."""

    def opener() -> BlobStore | None:
        store = settings.config.store
        if store.backend == "SharedDirectory" and store.path is not None:
            # The claim is mounted; the job's own folder inside it is made here, by one role, and never its parents.
            with suppress(FileExistsError, FileNotFoundError):
                os.mkdir(store.path, 0o750)
        return open_pool(settings.config, host=settings.host, token_directory=settings.token_directory)

    return opener


def open_pool(config: JobConfig, *, host: str, token_directory: Path) -> BlobStore | None:
    """The job's pool as a process at `host` sees it; None where it is memory of another process.

    It asks the pool's master and moves no object, so it needs none of the devices that only the others have.
    """
    if config.store.backend == "Memory":
        return None
    token = token_directory / env.TOKEN_STORE
    store = msgspec.structs.replace(config.store, protocol="TCP", rdma_devices="")
    return open_blobs(StoreConfig.of_job(store, local_hostname=host, token_file=token if token.is_file() else None))
