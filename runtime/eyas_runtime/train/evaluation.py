"""What the ranks know of evaluations: totals of the round under way, every finished round, and the best checkpoint.

It is part of the trained state: every rank holds the same, each checkpoint's manifest carries it as of its step, and
whoever starts from that checkpoint goes on from there. So a kill in the middle of a round, a lost metadata volume or
a way back to an older checkpoint changes neither a metric nor which checkpoint is the best. Pure; torch-free.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from eyas_contract import wire
from eyas_contract.refs import SampleRef
from eyas_runtime.core.rounds import Part
from eyas_runtime.train.eagle3.config import Normalisation, denominator
from eyas_runtime.train.group import add_floats

PREFIX: Final = "eval_"
LOSS: Final = "loss"
BEST: Final = "eval_best"
"""1 for a round with the lowest loss so far, else 0: the service orders a checkpoint after it."""
Metrics = Callable[[Sequence[float], float], dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One evaluation window: totals over all ranks, and the samples that they are about."""

    totals: tuple[float, ...]
    live: tuple[SampleRef, ...]


class Evaluations:
    """The state and its only two changes: a window was measured, a best checkpoint got its directory."""

    def __init__(self, state: wire.EvaluationState | None, normalisation: Normalisation) -> None:
        self._state = state or wire.EvaluationState()
        self._normalisation: Normalisation = normalisation

    def state_at(self, step: int, directory: str) -> wire.EvaluationState:
        """For the manifest of a checkpoint at `step` in `directory`, which is the best one if its round just was."""
        best = self._state.best
        if best is not None and best.step == step:
            self._state = msgspec.structs.replace(self._state, best=msgspec.structs.replace(best, directory=directory))
        return self._state

    def add(self, step: int, part: Part, measured: Measured, metrics: Metrics) -> dict[str, float]:
        """Take in evaluation window `step`; the round's metrics after its last part, nothing before.

        A round without a live sample has no loss and is no best one.
        """
        before = wire.EvaluationState(points=self._state.points, best=self._state.best)
        begun = before if part.number == 0 else self._state
        counted = [sums for sums in (begun.sums, measured.totals) if sums and measured.live]
        now = msgspec.structs.replace(
            begun,
            sums=add_floats(counted) if counted else begun.sums,
            num_tokens=begun.num_tokens + sum(ref.num_tokens for ref in measured.live),
            num_supervised=begun.num_supervised + sum(ref.num_supervised for ref in measured.live),
            num_live=begun.num_live + len(measured.live),
        )
        if not part.is_last:
            self._state = now
            return {}
        self._state = before
        return self._finish(step, part, now, metrics)

    def _finish(self, step: int, part: Part, total: wire.EvaluationState, metrics: Metrics) -> dict[str, float]:
        found = {f"{PREFIX}live_samples": float(total.num_live)}
        if not total.num_live:
            return found
        divisor = denominator(self._normalisation, num_tokens=total.num_tokens, num_supervised=total.num_supervised)
        found |= {f"{PREFIX}{name}": value for name, value in metrics(total.sums, divisor).items()}
        loss, best = found[f"{PREFIX}{LOSS}"], self._state.best
        is_best = best is None or loss < best.eval_loss
        point = wire.EvaluationPoint(step=step, training_step=part.training_step, eval_loss=loss)
        self._state = wire.EvaluationState(
            points=(*self._state.points, point),
            best=wire.Best(directory="", step=step, training_step=part.training_step, eval_loss=loss)
            if is_best
            else best,
        )
        return {**found, BEST: float(is_best)}
