"""Attention of one unrolled step: causal keys of step 0, plus one diagonal key for each later step.

Step k's query at position t sees the step-0 keys of positions 0..t and its own keys of steps 1..k. K x T keys are
never laid out: a fused causal kernel gives the output and the log of the softmax's denominator over step 0, the
few diagonal scores are added to that denominator, and the two parts are weighted together. The backward pass hands
the fused kernel the *joint* output and denominator, from which it computes exactly its own share of the gradient.
Rows that do no work are zero in the kernel's slots: their gradient is zero, and no live query sees them. The slots
are causal blocks, one after the other (`plan.Plan.blocks`); a run of equal blocks is one call of the kernel, and no
block sees another.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eyas_runtime.train.eagle3.context import Context

aten = torch.ops.aten


Blocks = tuple[tuple[int, int], ...]
"""Runs (n, span) of n causal blocks of `span` slots each."""


class _Kernel(NamedTuple):
    """A causal forward's result and what its backward needs besides."""

    out: Tensor
    lse: Tensor
    extra: tuple[Any, ...]


def _causal_forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> _Kernel:
    """q [B, N, S, E]; k, v [B, G, S, E], G dividing N. out [B, N, S, E], lse float [B, N, S]."""
    if q.device.type == "cpu":
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True, scale=scale)
        return _Kernel(out, lse, ())
    if q.device.type == "cuda" and q.dtype in (torch.bfloat16, torch.float16):
        out, lse, cum_q, cum_k, max_q, max_k, seed, offset, _ = aten._scaled_dot_product_flash_attention(
            q, k, v, 0.0, True, False, scale=scale
        )
        return _Kernel(out, lse, (cum_q, cum_k, max_q, max_k, seed, offset))
    return _plain_forward(q, k, v, scale)


def _causal_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, joint: _Kernel, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    if q.device.type == "cpu":
        grads = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, joint.out, joint.lse, 0.0, True, scale=scale
        )
    elif q.device.type == "cuda" and q.dtype in (torch.bfloat16, torch.float16):
        cum_q, cum_k, max_q, max_k, seed, offset = joint.extra
        grads = aten._scaled_dot_product_flash_attention_backward(
            grad, q, k, v, joint.out, joint.lse, cum_q, cum_k, max_q, max_k, 0.0, True, seed, offset, scale=scale
        )
    else:
        grads = _plain_backward(grad, q, k, v, joint, scale)
    return grads[0], grads[1], grads[2]


def _plain_scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    group = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(group, 1).transpose(-1, -2) * scale
    future = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(future, -math.inf)


def _plain_forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> _Kernel:
    """The same in plain products, for devices and dtypes without a fused kernel."""
    scores = _plain_scores(q, k, scale)
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None]).exp()
    return _Kernel(weights @ v.repeat_interleave(q.shape[1] // v.shape[1], 1), lse, ())


def _plain_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, joint: _Kernel, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    b, n, s, e = q.shape
    groups = k.shape[1]
    weights = (_plain_scores(q, k, scale) - joint.lse[..., None]).exp()
    grad_weights = grad @ v.repeat_interleave(n // groups, 1).transpose(-1, -2)
    delta = (grad * joint.out).sum(-1, keepdim=True)
    grad_scores = weights * (grad_weights - delta) * scale
    grad_k = (grad_scores.transpose(-1, -2) @ q).view(b, groups, n // groups, s, e).sum(2)
    grad_v = (weights.transpose(-1, -2) @ grad).view(b, groups, n // groups, s, e).sum(2)
    return grad_scores @ k.repeat_interleave(n // groups, 1), grad_k, grad_v


def _dense(rows: Tensor, slots: Tensor, total: int) -> Tensor:
    """rows [R, ...] at their slots of a zero [total, ...]."""
    return rows.new_zeros(total, *rows.shape[1:]).index_copy_(0, slots, rows)


def _runs(blocks: Blocks, *flat: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """For each run (n, span) of equal blocks: views [n, X, span, ...] of every tensor [total, X, ...]."""
    start = 0
    for count, span in blocks:
        parts = (t[start : start + count * span] for t in flat)
        yield tuple(part.view(count, span, *part.shape[1:]).transpose(1, 2) for part in parts)
        start += count * span


def _flat(parts: Sequence[Tensor]) -> Tensor:
    """Inverse of `_runs` for one tensor: [n, X, span, ...] of each run to [total, X, ...]."""
    flat = [part.transpose(1, 2).flatten(0, 1) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def _blocks_forward(q: Tensor, k: Tensor, v: Tensor, blocks: Blocks, scale: float) -> _Kernel:
    """Block-diagonal causal attention over slots: out [total, N, E], lse [total, N]; q, k, v likewise."""
    kernels = [_causal_forward(a, b, c, scale) for a, b, c in _runs(blocks, q, k, v)]
    return _Kernel(
        _flat([part.out for part in kernels]),
        _flat([part.lse for part in kernels]),
        tuple(part.extra for part in kernels),
    )


def _blocks_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, joint: _Kernel, blocks: Blocks, scale: float
) -> tuple[Tensor, ...]:
    runs = zip(_runs(blocks, grad, q, k, v, joint.out, joint.lse), joint.extra, strict=True)
    parts = [
        _causal_backward(g, a, b, c, _Kernel(out, lse.contiguous(), extra), scale)
        for (g, a, b, c, out, lse), extra in runs
    ]
    return tuple(_flat(gradients) for gradients in zip(*parts, strict=True))


class _StepAttention(torch.autograd.Function):
    """See `step_attention`. Diagonal tensors are [R, G, k, E] while in use; their copies are not kept."""

    @staticmethod
    def forward(
        ctx: Context, q: Tensor, k0: Tensor, v0: Tensor, slots: Tensor, blocks: Blocks, scale: float, *diagonal: Tensor
    ) -> Tensor:
        kernel = _blocks_forward(_dense(q, slots, k0.shape[0]), k0, v0, blocks, scale)
        out, lse = kernel.out.index_select(0, slots), kernel.lse
        if diagonal:
            causal_lse = lse.index_select(0, slots)[..., None]  # [R, N, 1]
            keys, values = _stack(diagonal)
            scores = _grouped(q, keys) @ keys.transpose(-1, -2)  # [R, G, N/G, k]
            scores = scores.flatten(1, 2).to(lse.dtype) * scale
            joint = torch.logaddexp(causal_lse, scores.logsumexp(-1, keepdim=True))
            weights = (scores - joint).exp().to(q.dtype)
            from_diagonal = (_grouped(weights, keys) @ values).flatten(1, 2)
            out = torch.addcmul(from_diagonal, out, (causal_lse - joint).exp().to(out.dtype))
            lse = lse.index_copy(0, slots, joint.squeeze(-1))
        ctx.save_for_backward(q, k0, v0, slots, out, lse, *diagonal)
        ctx.blocks, ctx.scale, ctx.extra = blocks, scale, kernel.extra
        return out

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad: Tensor = grads[0].contiguous()
        q, k0, v0, slots, out, lse, *diagonal = ctx.saved_tensors
        total, scale = k0.shape[0], ctx.scale
        joint = _Kernel(_dense(out, slots, total), lse, ctx.extra)
        dense_grad, dense_q = _dense(grad, slots, total), _dense(q, slots, total)
        grad_dense_q, grad_k0, grad_v0 = _blocks_backward(dense_grad, dense_q, k0, v0, joint, ctx.blocks, scale)
        grad_q = grad_dense_q.index_select(0, slots)
        if not diagonal:
            return grad_q, grad_k0, grad_v0, None, None, None
        keys, values = _stack(diagonal)
        row_lse = lse.index_select(0, slots)[..., None]
        grouped_q, grouped_grad = _grouped(q, keys), _grouped(grad, keys)
        scores = (grouped_q @ keys.transpose(-1, -2)).flatten(1, 2).to(lse.dtype) * scale
        weights = (scores - row_lse).exp()
        grad_weights = (grouped_grad @ values.transpose(-1, -2)).flatten(1, 2).to(lse.dtype)
        delta = (grad * out).sum(-1, keepdim=True, dtype=lse.dtype)
        grad_scores = _grouped((weights * (grad_weights - delta) * scale).to(q.dtype), keys)
        grad_q = grad_q + (grad_scores @ keys).flatten(1, 2)
        grad_keys = (grad_scores.transpose(-1, -2) @ grouped_q).unbind(2)
        grad_values = (_grouped(weights.to(q.dtype), keys).transpose(-1, -2) @ grouped_grad).unbind(2)
        return grad_q, grad_k0, grad_v0, None, None, None, *grad_keys, *grad_values


def _stack(diagonal: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    half = len(diagonal) // 2
    return torch.stack(tuple(diagonal[:half]), 2), torch.stack(tuple(diagonal[half:]), 2)


def _grouped(x: Tensor, keys: Tensor) -> Tensor:
    """[R, N, X] as [R, G, N/G, X]: query heads by the key head that they share."""
    return x.reshape(x.shape[0], keys.shape[1], x.shape[1] // keys.shape[1], x.shape[2])


def step_attention(
    q: Tensor, k0: Tensor, v0: Tensor, slots: Tensor, blocks: Blocks, keys: Sequence[Tensor], values: Sequence[Tensor]
) -> Tensor:
    """Attend from the active rows; [R, N, E], differentiable in everything but `slots`.

    q [R, N, E] rotated queries; k0, v0 [total, G, E] step 0's keys and values by slot; slots int64 [R]; `blocks` say
    which slots belong together, and their n x span add up to `total`; `keys` and `values` hold [R, G, E] of each later
    step so far, this one included, and are empty at step 0.
    """
    scale = 1.0 / math.sqrt(q.shape[-1])
    out: Tensor = _StepAttention.apply(q, k0, v0, slots, blocks, scale, *keys, *values)  # type: ignore[no-untyped-call]
    return out


class _Scatter(torch.autograd.Function):
    """Rows to their slots; the gradient is a gather, which no device needs atomics for."""

    @staticmethod
    def forward(ctx: Context, rows: Tensor, slots: Tensor, blocks: Blocks) -> Tensor:
        ctx.save_for_backward(slots)
        return _dense(rows, slots, sum(count * span for count, span in blocks))

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slots,) = ctx.saved_tensors
        return grads[0].index_select(0, slots), None, None


def scatter(rows: Tensor, slots: Tensor, blocks: Blocks) -> Tensor:
    """Differentiable [P, G, E] -> [total, G, E] over the slots of `blocks`, zero where there is no row."""
    out: Tensor = _Scatter.apply(rows, slots, blocks)  # type: ignore[no-untyped-call]
    return out
