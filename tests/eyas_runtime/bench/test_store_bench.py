"""The store benchmark runs all arms and reports what it promises; its figures are not tested."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from eyas_contract.errors import UserError
from eyas_runtime.bench.store import benchmark_store
from support.mooncake_pool import Pool, running_pool


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with running_pool(tmp_path, segment_bytes=64 << 20) as running:
        yield running


@pytest.mark.slow
def test_every_arm_is_measured_and_the_pool_is_left_empty(pool: Pool) -> None:
    result = benchmark_store(pool.settings(), object_bytes=300_000, objects=3, pairs=5)
    for operation in ("put", "get"):
        figures = result[operation]
        assert isinstance(figures, dict)
        assert all(figures[f"{arm}_bytes_per_second"] > 0 for arm in ("ours", "bare", "naive"))
        assert all(figures[f"ours_to_{arm}"]["median"] > 0 for arm in ("bare", "naive"))
    assert list(pool.admin().keys("eyas.")) == []


def test_too_few_pairs_are_refused(tmp_path: Path) -> None:
    settings = Pool(tmp_path).settings()
    with pytest.raises(UserError, match="5"):
        benchmark_store(settings, pairs=4)
