"""Counts to numbers: divided once, after they were added."""

import pytest
import torch

from eyas_runtime.train.eagle3.metrics import StepCounts, metrics, simulated_accepted_length, step_counts
from numerics.cases import a_case, a_sample


def test_the_simulated_length_is_the_sum_of_growing_products() -> None:
    assert simulated_accepted_length([0.5, 0.5, 1.0]) == 0.5 + 0.25 + 0.25
    assert simulated_accepted_length([]) == 0


def test_the_reported_loss_is_the_trained_one_and_ratios_have_their_own_denominators() -> None:
    case = a_case()
    result, _ = case.run([a_sample(case.config, n) for n in (9, 12)], 21.0)
    sums = result.counts.sum(2)
    numbers = metrics(step_counts(sums.tolist()), denominator=21.0, decay=case.loss.decay)
    assert numbers["loss"] == pytest.approx(result.loss.item(), rel=1e-12)
    assert numbers["acc_1"] == float(sums[1, 1] / sums[2, 1])
    assert numbers["acceptance_rate_2"] == float(sums[3, 2] / sums[4, 2])


def test_adding_ranks_before_dividing_equals_one_batch() -> None:
    case = a_case()
    samples = [a_sample(case.config, n) for n in (9, 5, 12)]
    whole = step_counts(case.run(samples)[0].counts.sum(2).tolist())
    parts = [step_counts(case.run(part)[0].counts.sum(2).tolist()) for part in (samples[:1], samples[1:])]
    for k, count in enumerate(whole):
        added = parts[0][k] + parts[1][k]
        assert torch.allclose(torch.tensor(tuple_of(added)), torch.tensor(tuple_of(count)), rtol=1e-6)


def test_a_ratio_over_nothing_is_zero() -> None:
    assert metrics([StepCounts()], denominator=1.0, decay=0.8)["acc_0"] == 0


def tuple_of(counts: StepCounts) -> tuple[float, ...]:
    return (counts.loss, counts.correct, counts.supervised, counts.accepted, counts.in_vocab)
