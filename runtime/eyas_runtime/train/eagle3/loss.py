"""The objective and its gradient in one pass, with the metrics counted on the way.

The logits of a (position, step) pair are needed once: from them come its loss, its metrics and the gradient with
respect to itself, which goes into the two products of the output matrix at once. So nothing of size D outlives a
block, and backward only scales what forward found. That needs the weight of each pair up front: decay^k over the
denominator. Only supervised positions whose teacher token is in the draft's vocabulary are pairs; everything else
has no loss, so its logits are never made.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor

from eyas_runtime.train.eagle3.columns import log_softmax, softmax, totals
from eyas_runtime.train.eagle3.config import LkConfig, LossConfig
from eyas_runtime.train.eagle3.context import Context
from eyas_runtime.train.eagle3.exchange import added
from eyas_runtime.train.eagle3.grid import Line
from eyas_runtime.train.eagle3.plan import Plan
from eyas_runtime.train.eagle3.products import nn, nt_float, tn
from eyas_runtime.train.eagle3.teacher import TargetHead, Teacher, teach

PAIR_BYTES: Final = 256 << 20
"""Pair logits held at once; a block of positions is as large as this allows."""
COUNTS: Final = ("loss", "correct", "supervised", "accepted", "in_vocab")
"""Rows of `Result.counts`: sum of losses, of right guesses, of supervised positions, of acceptance, of pairs."""


class Result(NamedTuple):
    """What one forward gives."""

    loss: Tensor
    """Scalar: sum over k of decay^k x (sum of losses of step k) / denominator; differentiable."""
    counts: Tensor
    """float64 [len(COUNTS), K, B], detached: per step and sample, unweighted and undivided."""


class _Pairs(NamedTuple):
    """Kept pairs of one block of positions, step after step."""

    rows: Tensor
    """int64 [M]: index into [K * R] of the stacked outputs."""
    teacher: list[Tensor | None]
    """Per step: int64 indices into the block's kept positions, or None for all of them."""
    sizes: list[int]


def _pairs(plan: Plan, kept: Tensor, active: int) -> _Pairs:
    """Pairs of the supervised positions `kept` (int64 indices into N)."""
    rows, teacher, sizes = [], [], []
    table = plan.pair_rows.index_select(1, kept)
    everywhere = bool((table >= 0).all())
    for k, row in enumerate(table):
        chosen = None if everywhere else (row >= 0).nonzero().squeeze(1)
        row = row if chosen is None else row.index_select(0, chosen)
        rows.append(row + k * active)
        teacher.append(chosen)
        sizes.append(row.numel())
    return _Pairs(torch.cat(rows), teacher, sizes)


class _Share(NamedTuple):
    """Teacher of the kept positions of a block: p over the draft's vocabulary, and p on the full one's scale."""

    p: Tensor
    on_draft: Tensor
    best: Tensor


def _share(teacher: Teacher, keep: Tensor, line: Line) -> _Share:
    everything = bool(keep.all())
    logits = teacher.logits if everything else teacher.logits[keep]
    lse = teacher.full_lse if everything else teacher.full_lse[keep]
    p = softmax(logits, line)
    return _Share(p, logits.sub_(lse[:, None]).exp_(), teacher.best if everything else teacher.best[keep])


class _StepCounts(NamedTuple):
    loss: Tensor
    correct: Tensor
    accepted: Tensor


def _pair_gradient(logits: Tensor, share: _Share, lk: LkConfig | None, line: Line) -> _StepCounts:
    """Losses of the pairs `logits` [m, D / T]; replaces the logits by the losses' gradient with respect to them."""
    p = share.p
    log_q, best = log_softmax(logits, line)
    loss = -torch.bmm(p[:, None], log_q[:, :, None]).flatten()
    correct = best == share.best
    q = log_q.exp_()
    smaller = torch.minimum(q, share.on_draft, out=logits)
    loss, accepted = totals(line, loss, smaller.sum(dim=1))
    if lk is None:
        torch.sub(q, p, out=logits)
        return _StepCounts(loss, correct, accepted)
    # d a / d logit_i = q_i (1[q_i < p_i] - sum of q_j over q_j < p_j)
    below = torch.where(q < share.on_draft, q, 0.0)
    (sum_below,) = totals(line, below.sum(dim=1))
    grad_accepted = below - q * sum_below[:, None]
    if lk.kind == "alpha":
        floor = accepted.clamp_min(torch.finfo(accepted.dtype).tiny)
        logits.copy_(grad_accepted / -floor[:, None])
        return _StepCounts(-floor.log(), correct, accepted)
    weight = lk.kl_scale * torch.exp(-lk.kl_decay * accepted)
    by_accepted = -lk.kl_decay * weight * (loss - (1 - accepted)) - (1 - weight)
    logits.copy_(weight[:, None] * (q - p) + by_accepted[:, None] * grad_accepted)
    return _StepCounts(weight * loss + (1 - weight) * (1 - accepted), correct, accepted)


class _Sums:
    """What the blocks of one forward accumulate; gradients only where `wants_grad`."""

    def __init__(self, x: Tensor, plan: Plan, loss: LossConfig, denominator: float, wants_grad: bool) -> None:
        self.scales = [loss.decay**k / denominator for k in range(loss.steps)]
        self.total = torch.zeros((), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        self.counts = torch.zeros(len(COUNTS), loss.steps, plan.batch_size, dtype=torch.float64, device=x.device)
        self.grad_x = torch.zeros_like(x) if wants_grad else None
        self.grad_weight: Tensor | None = None

    def count(self, k: int, owner: Tensor, columns: dict[str, Tensor]) -> None:
        """Add values [m] of pairs of step k to their samples `owner` [m].

        The order is always the same, and a value that is not finite shows in its own sample alone.
        """
        mine = owner == torch.arange(self.counts.shape[2], device=owner.device)[:, None]
        for name, value in columns.items():
            self.counts[COUNTS.index(name), k] += torch.where(mine, value.to(torch.float64), 0.0).sum(dim=1)

    def learn(self, pairs: _Pairs, rows: Tensor, gradient: Tensor, weight: Tensor) -> None:
        """Carry the gradient of logits [M, D], before the scale of each step, into the two operands."""
        if self.grad_x is None:
            return
        scale = torch.cat([gradient.new_full((m, 1), self.scales[k]) for k, m in enumerate(pairs.sizes)])
        gradient = gradient.to(rows.dtype)
        self.grad_x.index_copy_(0, pairs.rows, (nn(gradient, weight) * scale).to(rows.dtype))
        part = tn(gradient, (rows * scale).to(rows.dtype)).to(self.total.dtype)
        self.grad_weight = part if self.grad_weight is None else self.grad_weight.add_(part)


def _block(
    x: Tensor, weight: Tensor, plan: Plan, share: _Share, kept: Tensor, sums: _Sums, loss: LossConfig, line: Line
) -> None:
    """Add the losses, counts and gradients of the supervised positions `kept` to `sums`."""
    pairs = _pairs(plan, kept, x.shape[0] // loss.steps)
    rows = x.index_select(0, pairs.rows)
    logits = nt_float(rows, weight)
    for k, part in enumerate(torch.split(logits, pairs.sizes)):
        chosen = pairs.teacher[k]
        mine = share if chosen is None else _Share(*(t.index_select(0, chosen) for t in share))
        got = _pair_gradient(part, mine, loss.lk, line)
        sums.total = sums.total + sums.scales[k] * got.loss.sum()
        owner = plan.sample.index_select(0, kept if chosen is None else kept.index_select(0, chosen))
        columns = {"loss": got.loss, "correct": got.correct, "accepted": got.accepted}
        sums.count(k, owner, {**columns, "in_vocab": torch.ones_like(got.loss)})
    sums.learn(pairs, rows, logits, weight)


class _Objective(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context, x: Tensor, weight: Tensor, hidden: Tensor, plan: Plan, head: TargetHead, loss: LossConfig,
        denominator: float, wants_grad: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        sums = _Sums(x, plan, loss, denominator, wants_grad)
        for k in range(loss.steps):
            sums.count(k, plan.sample, {"supervised": plan.pair_rows[k] >= 0})
        size = max(1, PAIR_BYTES // (loss.steps * weight.shape[0] * sums.total.element_size()))
        for start in range(0, hidden.shape[0], size):
            teacher = teach(hidden[start : start + size], head)
            kept = teacher.in_vocab.nonzero().squeeze(1) + start
            if kept.numel():
                share = _share(teacher, teacher.in_vocab, head.line)
                _block(x, weight, plan, share, kept, sums, loss, head.line)
        if sums.grad_x is not None:
            sums.grad_x = added(sums.grad_x, head.line)
            learnt = torch.zeros_like(weight) if sums.grad_weight is None else sums.grad_weight
            ctx.save_for_backward(sums.grad_x, learnt)
        ctx.dtype = weight.dtype
        ctx.mark_non_differentiable(sums.counts)
        return sums.total, sums.counts

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_weight = ctx.saved_tensors
        scale = grads[0]
        return grad_x * scale.to(grad_x.dtype), (grad_weight * scale).to(ctx.dtype), *(None,) * 6


def objective(
    outputs: list[Tensor], weight: Tensor, target: Tensor, plan: Plan, head: TargetHead, loss: LossConfig,
    denominator: float,
) -> Result:  # fmt: skip
    """Loss and counts of K steps.

    outputs: K times [R, H], the final norm's output. weight [D, H]: the draft's output matrix, or a tensor rank's
    rows of it, as many as the head has. target [B, T, A]: shifted last hidden states. denominator: of the whole window
    over all ranks, above 0.
    """
    hidden = target.flatten(0, 1).index_select(0, plan.supervised)
    total, counts = _Objective.apply(  # type: ignore[no-untyped-call]
        torch.cat(outputs), weight, hidden, plan, head, loss, denominator, torch.is_grad_enabled()
    )
    return Result(total, counts)
