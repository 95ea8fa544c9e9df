"""The learning rate at given steps."""

import math

import pytest

from eyas_contract.errors import UserError
from eyas_runtime.train.eagle3.schedule import ScheduleConfig, learning_rate

CONFIG = ScheduleConfig(learning_rate=2.0, total_steps=1000)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 2 / 15), (7, 2 * 8 / 15), (14, 2.0), (15, 2.0), (1000, 0.0), (5000, 0.0),
        (15 + 197, 1 + math.cos(math.pi * 0.2)),
    ],
)  # fmt: skip
def test_warm_up_is_linear_over_the_ratio_and_then_half_a_cosine(step: int, rate: float) -> None:
    assert learning_rate(CONFIG, step) == pytest.approx(rate, rel=1e-12, abs=1e-15)


def test_the_last_step_still_learns() -> None:
    assert learning_rate(CONFIG, 999) > 0


def test_the_rate_never_rises_after_warm_up() -> None:
    rates = [learning_rate(CONFIG, step) for step in range(15, 1001)]
    assert rates == sorted(rates, reverse=True)


def test_a_short_run_has_no_warm_up() -> None:
    assert learning_rate(ScheduleConfig(learning_rate=2.0, total_steps=10), 0) == 2.0


def test_constant_is_constant() -> None:
    config = ScheduleConfig(learning_rate=3.0, total_steps=10, kind="constant")
    assert {learning_rate(config, step) for step in range(20)} == {3.0}


@pytest.mark.parametrize(
    "values", [{"total_steps": 0}, {"learning_rate": -1.0}, {"learning_rate": math.nan}, {"warmup_ratio": 1.0}]
)
def test_settings_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UserError):
        ScheduleConfig(**{"total_steps": 5, **values})  # type: ignore[arg-type]
