"""The learning rate as a pure function of the step, so that a resumed run needs only its step. Torch-free."""

import math
from dataclasses import dataclass
from typing import Literal

from eyas_contract.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """Linear warm-up over `warmup_ratio` of `total_steps`, then half a cosine to 0, or constant throughout."""

    learning_rate: float = 1e-4
    total_steps: int
    """The horizon: windows of the whole run, holes and skipped windows included."""
    kind: Literal["cosine", "constant"] = "cosine"
    warmup_ratio: float = 0.015

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise UserError(f"training.maxSteps is {self.total_steps}: give at least 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate >= 0):
            raise UserError(f"training.learningRate is {self.learning_rate}: give a number of at least 0")
        if not 0 <= self.warmup_ratio < 1:
            raise UserError(f"training.warmupRatio is {self.warmup_ratio}: give a number from 0 to below 1")


def learning_rate(config: ScheduleConfig, step: int) -> float:
    """Rate of the update of window `step` (0-based).

    Warm-up gives rate x (step + 1) / warm-up steps, so that the first update is never lost on a rate of 0; the
    cosine starts at the full rate right after it and would reach 0 at `total_steps`, where it stays.
    """
    warmup = int(config.warmup_ratio * config.total_steps)
    if config.kind == "constant":
        return config.learning_rate
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / (config.total_steps - warmup))
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
