"""What after step w? The next order of an incarnation, as a pure function of what is stored.

Rules. At most one checkpoint is in flight. A checkpoint that is due, a drain, or the end is ordered at once and never
waits for window w + 1, which might itself wait for that checkpoint. The first checkpoint of an incarnation comes after
its first new step and the distance doubles from there up to `every_steps`, so that the durable step advances even when
the ranks are killed once a minute. The bits do not depend on when checkpoints happen.

An evaluation that gave the lowest loss so far is followed by a checkpoint at that very boundary; whether it did is
known when its last window is acked, so nothing is ordered before that.
"""

from dataclasses import dataclass
from typing import Literal

from eyas_runtime.metadata.port import GangState


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Train the window of `step`."""

    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Write a checkpoint at `step`; stop after it when `last`."""

    step: int
    last: bool
    reason: Literal["schedule", "pressure", "best", "drain", "complete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Stop at `step`, which is durable already."""

    step: int
    reason: Literal["drain", "complete"]


Decision = Train | Checkpoint | Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What weighs on the decision besides the stored state."""

    every_steps: int
    drain: bool
    pressure: bool
    """The next window cannot be admitted to the store until a checkpoint lets features go."""
    trained_since_durable: int
    """Optimizer steps since the durable step: what `every_steps` counts."""
    evaluating: bool
    """The newest ordered window is an evaluation one."""
    best: bool = False
    """The newest ordered window ended an evaluation with the lowest loss so far."""


def checkpoint_distance(gang: GangState, *, every_steps: int) -> int:
    """Windows between the last durable one and the next scheduled checkpoint: 1, 2, 4, ... up to `every_steps`."""
    done = max(0, gang.durable_step - gang.checkpoint_step)
    return max(1, min(every_steps, done + 1))


def _is_due(gang: GangState, wishes: Wishes) -> bool:
    """Inside an evaluation, and while the distance doubles, every window counts.

    Optimizer steps stand still in an evaluation: if they decided, one that is longer than the time between two kills
    would never become durable.
    """
    distance = checkpoint_distance(gang, every_steps=wishes.every_steps)
    if distance < wishes.every_steps or wishes.evaluating:
        return gang.ordered_step - gang.durable_step >= distance
    return wishes.trained_since_durable >= wishes.every_steps


def decide(gang: GangState, *, total_steps: int, wishes: Wishes, window_ready: bool) -> Decision | None:
    """The next order, or None when nothing can be ordered now.

    `total_steps` is 0 while the inputs are not prepared; `window_ready` speaks of the window after `gang.ordered_step`.
    """
    if total_steps == 0 or gang.ending:
        return None
    step = gang.ordered_step
    in_flight = gang.checkpoint_ordered_step != 0
    if step >= total_steps or wishes.drain:
        reason: Literal["drain", "complete"] = "complete" if step >= total_steps else "drain"
        if gang.durable_step >= step:
            return Stop(step=step, reason=reason)
        return None if in_flight else Checkpoint(step=step, last=True, reason=reason)
    if wishes.best and max(gang.durable_step, gang.checkpoint_ordered_step) < step:
        return None if in_flight else Checkpoint(step=step, last=False, reason="best")
    if not in_flight and step > gang.durable_step:
        if _is_due(gang, wishes):
            return Checkpoint(step=step, last=False, reason="schedule")
        if wishes.pressure:
            return Checkpoint(step=step, last=False, reason="pressure")
    return Train(step=step + 1) if window_ready else None
