"""Clipping against torch's own, and updates that depend on nothing but their inputs."""

import pytest
import torch
from torch import nn

from eyas_runtime.train.eagle3.optim import OptimConfig, clip_gradients, make_optimizer, optimizer_step
from eyas_runtime.train.eagle3.schedule import ScheduleConfig

CONFIG = OptimConfig(schedule=ScheduleConfig(learning_rate=0.1, total_steps=100))


def a_model(scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape) * scale
    return model


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3], ids=["below", "above", "far-above"])
def test_clipping_equals_torchs_and_returns_the_norm_before(scale: float) -> None:
    ours, theirs = a_model(scale), a_model(scale)
    norm = clip_gradients(ours.parameters(), 0.5)
    want = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
    assert float(norm) == pytest.approx(float(want), rel=1e-6)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-8)


def test_a_norm_below_the_limit_leaves_the_bits_alone() -> None:
    model = a_model(1e-3)
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    clip_gradients(model.parameters(), 0.5)
    after = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_norm_that_is_not_finite_updates_nothing_and_is_returned(bad: float) -> None:
    model = a_model()
    optimizer = make_optimizer(model, CONFIG)
    before = [p.detach().clone() for p in model.parameters()]
    grad = next(model.parameters()).grad
    assert grad is not None
    grad[0, 0] = bad
    norm = optimizer_step(model, optimizer, CONFIG, 3)
    assert not norm < float("inf")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_an_update_uses_the_rate_of_its_step() -> None:
    """AdamW's first update moves each weight by the rate, whatever the gradient's size."""
    model = a_model()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer_step(model, make_optimizer(model, CONFIG), CONFIG, 50)
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(before, model.parameters(), strict=True))
    from eyas_runtime.train.eagle3.schedule import learning_rate

    assert moved == pytest.approx(learning_rate(CONFIG.schedule, 50), rel=1e-3)


def test_equal_inputs_give_equal_bits() -> None:
    ends = []
    for _ in range(2):
        model = a_model()
        optimizer = make_optimizer(model, CONFIG)
        for step in range(3):
            for i, parameter in enumerate(model.parameters()):
                generator = torch.Generator().manual_seed(10 * step + i)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer_step(model, optimizer, CONFIG, step)
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_frozen_parameters_are_not_optimised() -> None:
    model = a_model()
    first = next(model.parameters())
    first.requires_grad_(False)
    groups = make_optimizer(model, CONFIG).param_groups
    assert all(p is not first for group in groups for p in group["params"])
