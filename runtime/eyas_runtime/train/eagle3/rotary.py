"""Rotary positions in Hugging Face's half-split layout. Step k of the unrolled draft uses position t + k."""

from typing import NamedTuple

import torch
from torch import Tensor

from eyas_runtime.train.eagle3.context import Context


class Rotation(NamedTuple):
    """Cosine and signed sine of some rows: float [rows, 1, E] each."""

    cos: Tensor
    sin: Tensor


def rotation(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotation:
    """Rotation of rows at `positions` (int64 [rows]); angles are computed in float64, on the positions' device."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim
    angle = positions.to(torch.float64)[:, None] * (theta**-exponent)[None, :]
    cos, sin = angle.cos(), angle.sin()
    return Rotation(torch.cat((cos, cos), 1)[:, None].to(dtype), torch.cat((-sin, sin), 1)[:, None].to(dtype))


class _Rotate(torch.autograd.Function):
    """x cos + swap(x) sin: orthogonal, so its gradient is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return torch.addcmul(x * cos, _swap(x), sin)

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        cos, sin = ctx.saved_tensors
        return torch.addcmul(grad * cos, _swap(grad), sin, value=-1), None, None


def _swap(x: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return torch.cat((high, low), dim=-1)


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Rotate x [rows, heads, E] by its rows' angles; differentiable in x."""
    out: Tensor = _Rotate.apply(x, by.cos, by.sin)  # type: ignore[no-untyped-call]
    return out
