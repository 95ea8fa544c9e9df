"""From counted numerators and denominators to the numbers people read. Pure; torch-free.

Ranks add their counts and divide once, so no number depends on how samples were spread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCounts:
    """Sums of one unrolled step k over any set of samples."""

    loss: float = 0.0
    correct: float = 0.0
    supervised: float = 0.0
    accepted: float = 0.0
    in_vocab: float = 0.0

    def __add__(self, other: "StepCounts") -> "StepCounts":
        return StepCounts(
            loss=self.loss + other.loss,
            correct=self.correct + other.correct,
            supervised=self.supervised + other.supervised,
            accepted=self.accepted + other.accepted,
            in_vocab=self.in_vocab + other.in_vocab,
        )


def step_counts(sums: Sequence[Sequence[float]]) -> tuple[StepCounts, ...]:
    """K counts from nested numbers [5, K] in the order of `loss.COUNTS`, such as `Result.counts.sum(2).tolist()`."""
    return tuple(
        StepCounts(loss=a, correct=b, supervised=c, accepted=d, in_vocab=e) for a, b, c, d, e in zip(*sums, strict=True)
    )


def metrics(counts: Sequence[StepCounts], *, denominator: float, decay: float) -> Mapping[str, float]:
    """`loss`, and per step k `ploss_k`, `acc_k`, `acceptance_rate_k`; also `simulated_accepted_length`.

    `denominator` is the window's. A ratio over nothing is 0.
    """
    out: dict[str, float] = {"loss": 0.0}
    for k, count in enumerate(counts):
        ploss = count.loss / denominator
        out["loss"] += decay**k * ploss
        out[f"ploss_{k}"] = ploss
        out[f"acc_{k}"] = _ratio(count.correct, count.supervised)
        out[f"acceptance_rate_{k}"] = _ratio(count.accepted, count.in_vocab)
    out["simulated_accepted_length"] = simulated_accepted_length([out[f"acc_{k}"] for k in range(len(counts))])
    return out


def simulated_accepted_length(accuracies: Sequence[float]) -> float:
    """a0 + a0 a1 + a0 a1 a2 + ...: drafted tokens that survive if step k is right with probability a_k."""
    total, alive = 0.0, 1.0
    for accuracy in accuracies:
        alive *= accuracy
        total += alive
    return total


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0
