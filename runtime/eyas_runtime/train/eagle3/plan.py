"""Which positions of a batch do any work, computed once from masks and lengths.

Position t takes part in step k only if some later loss depends on it: if t+k' is supervised for a k' with
k <= k' < K. The union over k is the *active* rows R. A query of any step sees the keys of step 0 up to its own
position, so the *key* rows P are all positions up to the last supervised one. Prompts, padding, holes and tails
get no rows, hence no time and no influence. The embedding half of step k at t is that of step 0 at t+k, which is
active whenever it matters; where it is not, the row stands in for itself and its value reaches no loss.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from eyas_runtime.train.eagle3.batch import Batch


class Plan(NamedTuple):
    """Row indices of one batch for K unrolled steps. Flat positions count B x T with T the batch's own padding."""

    batch_size: int
    padded: int
    """T of the batch."""
    span: int
    """Positions 0..span-1 hold every key row; the attention's sequence length."""
    key_rows: Tensor
    """int64 [P]: flat positions (b * T + t) that have keys, ascending."""
    key_slots: Tensor
    """int64 [P]: the same in the attention's layout (b * span + t)."""
    query_rows: Tensor
    """int64 [R]: indices into the key rows of the active positions, ascending."""
    query_slots: Tensor
    """int64 [R]: the active positions in the attention's layout."""
    positions: Tensor
    """int64 [P]: t of each key row."""
    shifted: tuple[Tensor, ...]
    """K times int64 [R]: index into the active rows of the position t+k."""
    supervised: Tensor
    """int64 [N]: flat positions whose teacher is needed, ascending."""
    sample: Tensor
    """int64 [N]: the sample b of each supervised position."""
    offset: Tensor
    """int64 [N]: its t; the pair (supervised position s, step k) exists if k <= s."""
    pair_rows: Tensor
    """int64 [K, N]: index into the active rows of t-k, or -1 where there is none."""


def make_plan(batch: Batch, steps: int) -> Plan:
    """Plan `steps` unrolled steps of `batch`; the index tensors are on the batch's device."""
    device = batch.loss_mask.device
    b, t = batch.loss_mask.shape
    live = torch.tensor([w != 0 for w in batch.weights])[:, None]
    supervised = batch.loss_mask.cpu() & live
    active = supervised.clone()
    for k in range(1, min(steps, t)):
        active[:, : t - k] |= supervised[:, k:]
    column = torch.arange(t)
    last = torch.where(active, column, -1).amax(dim=1, keepdim=True)
    keys = column <= last
    span = max(int(last.max()) + 1, 1)

    key_flat = keys.flatten().nonzero().squeeze(1)
    active_flat = active.flatten().nonzero().squeeze(1)
    supervised_flat = supervised.flatten().nonzero().squeeze(1)
    # Row number of each flat position among the active ones; one column more than T, so that t+k can overrun.
    number = torch.full((b, t + steps), -1, dtype=torch.int64)
    number[:, :t][active] = torch.arange(active_flat.numel())
    rows = torch.arange(active_flat.numel())
    active_b, active_t = active_flat // t, active_flat % t
    shifted = []
    for k in range(steps):
        ahead = number[active_b, active_t + k]
        shifted.append(torch.where(ahead >= 0, ahead, rows).to(device))
    sample, offset = supervised_flat // t, supervised_flat % t
    pairs = [torch.where(offset >= k, number[sample, (offset - k).clamp_min(0)], -1) for k in range(steps)]
    return Plan(
        batch_size=b,
        padded=t,
        span=span,
        key_rows=key_flat.to(device),
        key_slots=(key_flat // t * span + key_flat % t).to(device),
        query_rows=torch.searchsorted(key_flat, active_flat).to(device),
        query_slots=(active_b * span + active_t).to(device),
        positions=(key_flat % t).to(device),
        shifted=tuple(shifted),
        supervised=supervised_flat.to(device),
        sample=sample.to(device),
        offset=offset.to(device),
        pair_rows=torch.stack(pairs).to(device),
    )
