"""The one door to matrix products, so that the CPU path can take the faster of two libraries.

On CPU, float32 products of two dimensions go to oneDNN, whose kernels are chosen by instruction set and not by
vendor: on processors where the default BLAS is slow it halves the time of a training step. Everything else
(float64, bfloat16, CUDA, empty operands) goes through `torch.mm`. For a given machine and thread count both give
the same bits at every call.
"""

from typing import Final

import torch
from torch import Tensor

from eyas_runtime.train.eagle3.context import Context

_ONEDNN: Final = (
    torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]
)


def _fast(a: Tensor, b: Tensor) -> bool:
    return (
        _ONEDNN
        and a.dtype is torch.float32
        and b.dtype is torch.float32
        and a.device.type == "cpu"
        and a.numel() > 0
        and b.numel() > 0
    )


def _dnn(a: Tensor, b: Tensor) -> Tensor:
    if not (b.is_contiguous() or b.t().is_contiguous()):
        # A second operand whose rows lie apart, such as a slice of a joint gradient, falls to oneDNN's reference loops.
        b = b.t().contiguous().t()
    out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return out


def nt(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T for a [m, k] and b [n, k]: [m, n]. No gradient."""
    return _dnn(a, b) if _fast(a, b) else torch.mm(a, b.t())


def nn(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for a [m, k] and b [k, n]: [m, n]. No gradient."""
    return _dnn(a, b.t()) if _fast(a, b) else torch.mm(a, b)


def tn(a: Tensor, b: Tensor) -> Tensor:
    """a.T @ b for a [k, m] and b [k, n]: [m, n], contiguous. No gradient."""
    if not _fast(a, b):
        return torch.mm(a.t(), b)
    # The first operand is copied into row order, so it should be the one that is cheaper to copy.
    if a.numel() > a.shape[1] * b.shape[1]:
        return _dnn(b.t(), a.t()).t().contiguous()
    return _dnn(a.t(), b.t())


def nt_float(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T accumulated and returned in at least float32: logits lose nothing to bfloat16's rounding."""
    if a.dtype in (torch.float32, torch.float64):
        return nt(a, b)
    if a.device.type == "cuda":
        return torch.mm(a, b.t(), out_dtype=torch.float32)
    return nt(a.float(), b.float())


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return nt(x, weight)

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        grad_x = nn(grad, weight) if ctx.needs_input_grad[0] else None
        grad_weight = tn(grad, x) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T for x [rows, in] and weight [out, in]: [rows, out], differentiable in both."""
    out: Tensor = _Linear.apply(x, weight)  # type: ignore[no-untyped-call]
    return out
