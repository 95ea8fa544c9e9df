"""Every device that is here, in every dtype that it computes in, against the float64 reference.

On a machine with CUDA this runs the fused CUDA kernels too; elsewhere the same claims hold for the CPU's.
"""

import pytest
import torch
from torch import Tensor

from eyas_runtime.train.eagle3.batch import normalise
from eyas_runtime.train.eagle3.config import LossConfig
from eyas_runtime.train.eagle3.teacher import target_head
from numerics.cases import a_case, a_sample

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
# Heads of 8 values, which the fused CUDA kernels ask for.
SHAPE = {"head_dim": 8, "hidden_size": 16, "target_hidden_size": 16, "intermediate_size": 24}
ERRORS = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.05}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ERRORS, ids=str)
def test_loss_and_gradients_are_the_references_to_the_dtypes_precision(device: str, dtype: torch.dtype) -> None:
    case = a_case(LossConfig(steps=4), **SHAPE)
    samples = [a_sample(case.config, n) for n in (19, 33)]
    total, _, want = case.reference(samples, 52.0)
    case.draft.zero_grad()
    draft = case.draft.to(device, dtype)
    # The teacher keeps its own precision, or its argmax would move positions in and out of the vocabulary.
    wide = torch.promote_types(dtype, torch.float32)
    head = target_head(case.head, case.vocab, dtype=wide, device=device)
    result = draft(normalise(samples, case.config, device=device), head, 52.0)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(total, rel=ERRORS[dtype])
    for name, parameter in draft.named_parameters():
        assert parameter.grad is not None
        assert _error(parameter.grad, want[name]) < ERRORS[dtype], name


@pytest.mark.parametrize("device", DEVICES)
def test_equal_runs_on_a_device_give_equal_bits(device: str) -> None:
    case = a_case(LossConfig(steps=4), **SHAPE)
    draft = case.draft.to(device, torch.bfloat16 if device == "cuda" else torch.float32)
    head = target_head(case.head, case.vocab, dtype=torch.float32, device=device)
    batch = normalise([a_sample(case.config, n) for n in (19, 33)], case.config, device=device)
    runs = []
    for _ in range(2):
        draft.zero_grad()
        result = draft(batch, head, 52.0)
        result.loss.backward()
        gradients = [p.grad.clone() for p in draft.parameters() if p.grad is not None]
        runs.append([result.loss.detach(), result.counts, *gradients])
    assert len(runs[0]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def _error(got: Tensor, want: Tensor) -> float:
    return float((got.double().cpu() - want).norm() / want.norm())
