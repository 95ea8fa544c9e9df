"""The benchmark's two arms compute the same thing, and it reports what it says."""

import pytest
import torch

from eyas_runtime.train.eagle3.batch import normalise
from eyas_runtime.train.eagle3.bench import StepTimes, bench_step
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
