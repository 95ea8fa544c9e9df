"""A Mooncake pool of a test's own, for tests that kill its parts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from eyas_contract.ids import JobUid
from support.keys import new_job
from support.mooncake_pool import Pool, running_pool


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with running_pool(tmp_path, segment_bytes=64 << 20, client_ttl_seconds=3) as running:
        yield running


@pytest.fixture
def job_uid() -> JobUid:
    return new_job()
