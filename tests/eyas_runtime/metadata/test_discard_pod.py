"""The sweeper as its pod runs it, under a supervisor and against a real Mooncake pool that holds two jobs' objects."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from eyas_contract import env
from eyas_contract.config import StoreConfig
from eyas_contract.ids import JobUid, object_key
from support.metadata_service import UID, job_config, lay_out
from support.mooncake_pool import Pool, running_pool
from support.waiting import wait_until

pytestmark = pytest.mark.slow
OTHER = JobUid("b" * 32)
SWEEPER = (
    "-m",
    "eyas_runtime.supervisor",
    "--role",
    "sweeper",
    "--",
    sys.executable,
    "-m",
    "eyas_runtime.metadata.discard",
)
SECONDS = 120


def sweeper(folder: Path, pool: Pool) -> "subprocess.Popen[bytes]":
    """The pod of a job on that pool."""
    store = StoreConfig(
        backend="Mooncake", max_resident_bytes=1 << 30, external=True,
        master_address=pool.master_address, master_metrics_address=pool.admin_address,
    )  # fmt: skip
    given = lay_out(folder / "pod", msgspec.structs.replace(job_config(folder / "pod"), store=store))
    given |= {env.ROLE: "sweeper", env.HOST_ADDRESS: f"{pool.subnet}.251", env.ORDINAL: "1"}
    with (folder / "sweeper.log").open("wb") as log:
        return subprocess.Popen([sys.executable, *SWEEPER], env=os.environ | given, stdout=log, stderr=log)


def test_the_pod_leaves_only_the_objects_of_other_jobs(tmp_path: Path) -> None:
    with running_pool(tmp_path, segment_bytes=64 << 20) as pool:
        client = pool.client()
        others = {object_key(OTHER, 1, number, f"{number:032x}") for number in range(1, 4)}
        mine = {object_key(UID, epoch, number, f"{number:032x}") for epoch in (1, 2) for number in range(1, 6)}
        for key in mine | others:
            client.put(key, b"x" * 4096)
        pod = sweeper(tmp_path, pool)
        try:
            assert pod.wait(SECONDS) == 0, (tmp_path / "sweeper.log").read_text()
        finally:
            pod.kill()
            pod.wait()
        assert {blob.key for blob in client.list("eyas.")} == others


def test_a_pool_that_is_away_is_waited_for(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    pod = sweeper(tmp_path, pool)
    try:
        log = tmp_path / "sweeper.log"
        wait_until(lambda: "the pool is asked again" in log.read_text(), "it meets no pool")
        assert pod.poll() is None
        pool.start_master()
        pool.start_node(64 << 20)
        assert pod.wait(SECONDS) == 0, log.read_text()
    finally:
        pod.kill()
        pod.wait()
        pool.stop()
