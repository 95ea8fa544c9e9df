"""The benchmark's two arms compute the same thing, and it reports what it says."""

import pytest
import torch

from eyas_runtime.train.eagle3.batch import normalise
from eyas_runtime.train.eagle3.bench import StepTimes, bench_step
from eyas_runtime.train.eagle3.bench_packing import PackingTimes, bench_packing
from eyas_runtime.train.eagle3.config import LossConfig
from eyas_runtime.train.eagle3.plain import plain_loss
from numerics.cases import a_case, a_config, a_sample, assert_same_gradients


def test_the_plain_arm_has_the_references_loss_and_gradients() -> None:
    case = a_case()
    samples = [a_sample(case.config, n) for n in (9, 12)]
    _, _, want = case.reference(samples, 21.0)
    case.draft.zero_grad()
    plain_loss(case.draft, normalise(samples, case.config), case.head, 21.0).backward()  # type: ignore[no-untyped-call]
    got = {n: p.grad for n, p in case.draft.named_parameters() if p.grad is not None}
    # The plain arm takes its softmaxes in float32, whatever the draft computes in.
    assert_same_gradients(got, want, rtol=1e-4, atol=1e-6)


def test_both_arms_are_timed_on_the_same_loss() -> None:
    times = bench_step(a_config(), LossConfig(steps=2), length=12, batch_size=2, repeats=1)
    assert times.plain_seconds > 0
    assert times.eyas_seconds > 0
    assert times.loss_difference < 1e-4
    assert 0 < times.in_vocab_share <= 1


def test_the_ratio_is_ours_over_theirs() -> None:
    times = StepTimes(plain_seconds=2.0, eyas_seconds=1.0, in_vocab_share=1.0, loss_difference=0.0)
    assert times.ratio == pytest.approx(0.5)


def test_the_benchmark_leaves_no_gradient_mode_behind() -> None:
    bench_step(a_config(), LossConfig(steps=1), length=6, repeats=1)
    assert torch.is_grad_enabled()


def test_all_arms_of_the_packing_benchmark_train_the_same_window() -> None:
    times = bench_packing(a_config(), LossConfig(steps=2), samples=6, lengths=(3, 12), max_tokens=24, repeats=1)
    assert min(times.single_seconds, times.padded_seconds, times.packed_seconds) > 0
    assert times.loss_difference < 1e-5
    assert times.slots[0] == times.slots[2] == times.tokens <= times.slots[1]
    assert times.turns[0] == 6
    assert times.turns[2] <= times.turns[1] <= 3


def test_the_packing_ratio_is_packed_over_padded() -> None:
    times = PackingTimes(
        tokens=1,
        turns=(1, 1, 1),
        slots=(1, 1, 1),
        single_seconds=9.0,
        padded_seconds=4.0,
        packed_seconds=1.0,
        loss_difference=0.0,
    )
    assert times.ratio == pytest.approx(0.25)


def test_a_budget_below_the_longest_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="does not hold"):
        bench_packing(a_config(), lengths=(3, 12), max_tokens=11)
