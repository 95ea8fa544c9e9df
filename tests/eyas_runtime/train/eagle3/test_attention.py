"""The joint attention: gradients by finite differences, both kernels, GQA."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from eyas_runtime.train.eagle3 import attention


def inputs(later: int) -> list[Tensor]:
    torch.manual_seed(1)
    shapes = [(5, 4, 6), (8, 2, 6), (8, 2, 6), *[(5, 2, 6)] * (2 * later)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


SLOTS = torch.tensor([0, 2, 3, 5, 6])
BLOCKS = ((2, 4),)


def run(*tensors: Tensor) -> Tensor:
    q, k0, v0, *rest = tensors
    half = len(rest) // 2
    return attention.step_attention(q, k0, v0, SLOTS, BLOCKS, rest[:half], rest[half:])


@pytest.fixture(params=["fused", "plain"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        plain_forward: Callable[..., object] = attention._plain_forward
        monkeypatch.setattr(attention, "_causal_forward", plain_forward)
        monkeypatch.setattr(attention, "_causal_backward", attention._plain_backward)
    return str(request.param)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("later", [0, 1, 3])
def test_gradients_equal_finite_differences(later: int) -> None:
    assert torch.autograd.gradcheck(run, inputs(later))


@pytest.mark.usefixtures("kernel")
def test_each_row_is_one_softmax_over_its_causal_and_its_diagonal_keys() -> None:
    q, k0, v0, k1, k2, v1, v2 = inputs(2)
    out = run(q, k0, v0, k1, k2, v1, v2)
    for row, slot in enumerate(SLOTS.tolist()):
        sample = slot // 4
        for head in range(4):
            g = head // 2
            keys = torch.cat((k0[4 * sample : slot + 1, g], k1[row, g][None], k2[row, g][None]))
            values = torch.cat((v0[4 * sample : slot + 1, g], v1[row, g][None], v2[row, g][None]))
            weights = torch.softmax(keys @ q[row, head] / 6**0.5, 0)
            torch.testing.assert_close(out[row, head], weights @ values)
