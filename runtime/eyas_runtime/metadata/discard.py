"""`python -m eyas_runtime.metadata.discard`: take every object of one job out of its pool, when nobody writes any more.

The last act for a job whose pool outlives it. It needs no database: all keys of a job begin with its UID, and when the
job is over none of them is wanted. It ends with 0 only after a listing that showed none; until then it goes on for
ever, through a pool that is away, because whoever started it also decides when to give up.
"""

import logging
import os
import time
from collections.abc import Callable
from typing import Final

from eyas_contract import env
from eyas_contract.config import read_config
from eyas_contract.errors import Transient
from eyas_contract.exits import Exit
from eyas_contract.ids import JobUid, key_prefix
from eyas_runtime.environment import required, required_path
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.metadata.service.stores import open_pool
from eyas_runtime.process import mark_ready, run_role

_log: Final = logging.getLogger(__name__)
PAUSE_SECONDS: Final = 2.0
"""Between two looks: the pool is away, or a reader still holds an object."""


def discard(blobs: BlobStore, job_uid: JobUid, *, pause: Callable[[], None]) -> int:
    """Delete until nothing of this job is listed; returns how many objects went. Objects of other jobs are not touched.

    Raises what the pool raises but `Transient`, which is waited out.
    """
    deleted = 0
    while True:
        try:
            listed = [blob.key for blob in blobs.list(key_prefix(job_uid))]
            deleted += sum(blobs.delete(key) for key in listed)
            blobs.sweep_temporary(writers_are_gone=True)
        except Transient as error:
            _log.warning("the pool is asked again: %s", error)
            pause()
            continue
        if not listed:
            return deleted
        pause()


def main() -> int:
    """Sweep the pool of the job that the environment names; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = read_config(required(os.environ, env.CONFIG_FILE))
    blobs = open_pool(
        config,
        host=required(os.environ, env.HOST_ADDRESS),
        token_directory=required_path(os.environ, env.TOKEN_DIRECTORY),
    )
    mark_ready()
    if blobs is not None:
        try:
            _log.info(
                "%d objects were deleted", discard(blobs, config.job_uid, pause=lambda: time.sleep(PAUSE_SECONDS))
            )
        finally:
            blobs.close()
    return int(Exit.DONE)


if __name__ == "__main__":
    run_role(main)
