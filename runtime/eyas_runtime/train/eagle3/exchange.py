"""What sequence and tensor ranks tell each other inside one forward and backward, as functions with gradients.

Every sum is made in rank order by one rank and copied to the others: the same bits on all of them and at every run,
whatever algorithm a library would choose. A line of one rank exchanges nothing and changes nothing.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from eyas_runtime.train.eagle3.context import Context
from eyas_runtime.train.eagle3.grid import Line


def gathered(x: Tensor, line: Line) -> Tensor:
    """Equal shapes of all ranks, [size, *x.shape] in rank order; no gradient."""
    if line.group is None:
        return x[None]
    out = x.new_empty(line.size, *x.shape)
    dist.all_gather_into_tensor(out.view(-1), x.contiguous().view(-1), group=line.group)
    return out


def dealt(parts: Tensor, line: Line) -> Tensor:
    """Rank r's part of the sum over ranks of `parts` [size, ...]: [...], added in rank order; no gradient.

    Short floats are added in float32 and rounded once.
    """
    if line.group is None:
        return parts[0]
    got = torch.empty_like(parts, memory_format=torch.contiguous_format)
    dist.all_to_all_single(got.view(-1), parts.contiguous().view(-1), group=line.group)
    total = got[0].to(torch.promote_types(got.dtype, torch.float32), copy=True)
    for part in got[1:]:
        total += part
    return total.to(got.dtype)


def added(x: Tensor, line: Line) -> Tensor:
    """The sum of `x` over the line's ranks, the same bits on each; no gradient."""
    if line.group is None:
        return x
    length = -(-x.numel() // line.size)
    flat = x.new_zeros(length * line.size)
    flat[: x.numel()] = x.reshape(-1)
    whole = gathered(dealt(flat.view(line.size, length), line), line)
    return whole.view(-1)[: x.numel()].view(x.shape)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, line: Line, sizes: Sequence[int]) -> Tensor:
        ctx.line, ctx.sizes = line, tuple(sizes)
        longest = max(sizes)
        padded = x.new_zeros(longest, *x.shape[1:])
        padded[: x.shape[0]] = x
        parts = gathered(padded, line)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        parts = grad.new_zeros(ctx.line.size, max(ctx.sizes), *grad.shape[1:])
        for part, mine in zip(parts, torch.split(grad, list(ctx.sizes)), strict=True):
            part[: mine.shape[0]] = mine
        return dealt(parts, ctx.line)[: ctx.sizes[ctx.line.rank]], None, None


def gather_rows(x: Tensor, line: Line, sizes: Sequence[int]) -> Tensor:
    """Rows [sizes[rank], ...] of every rank after each other: [sum(sizes), ...].

    Backward gives each rank the sum, in rank order, of all ranks' gradients of its own rows. Every rank must go
    through both, with rows or without.
    """
    out: Tensor = _GatherRows.apply(x, line, sizes)  # type: ignore[no-untyped-call]
    return out


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, line: Line) -> Tensor:
        ctx.line = line
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor, None]:
        return added(grads[0], ctx.line), None


def enter(x: Tensor, line: Line) -> Tensor:
    """`x`, equal on all ranks, goes into matrices split by rows: each rank's gradient is a part of x's."""
    if line.group is None:
        return x
    out: Tensor = _Enter.apply(x, line)  # type: ignore[no-untyped-call]
    return out


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, line: Line) -> Tensor:
        return added(x, line)

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def leave(x: Tensor, line: Line) -> Tensor:
    """Parts that come out of matrices split by columns, added up: equal on all ranks, and so is its gradient."""
    if line.group is None:
        return x
    out: Tensor = _Leave.apply(x, line)  # type: ignore[no-untyped-call]
    return out
