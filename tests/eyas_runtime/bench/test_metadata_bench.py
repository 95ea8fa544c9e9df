"""The metadata benchmark runs both arms and measures what it says; no figure is judged here."""

from pathlib import Path
from typing import Any, cast

import pytest

from eyas_contract.errors import UserError
from eyas_runtime.bench.metadata import SAMPLES_MIN, benchmark_metadata


def test_both_arms_run_and_every_case_is_measured(tmp_path: Path) -> None:
    found = cast(dict[str, Any], benchmark_metadata(folder=tmp_path, samples=SAMPLES_MIN, refs=(1024,)))
    assert found["commit"]["ours_group"]["count"] * 16 + found["commit"]["ours_single"]["count"] == SAMPLES_MIN
    assert found["commit"]["naive_row"]["count"] == SAMPLES_MIN
    assert found["ack"]["ours_window"]["count"] == found["ack"]["naive_window"]["count"] == 4
    assert set(found["reconcile"]["1024"]) == {"crash", "step_back", "older_rows", "lost_volume", "naive_crash"}
    assert all(case["seconds"] > 0 for case in found["reconcile"]["1024"].values())
    assert list(tmp_path.iterdir()) == [], "the benchmark leaves nothing behind"


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(UserError, match="at least"):
        benchmark_metadata(samples=1)
