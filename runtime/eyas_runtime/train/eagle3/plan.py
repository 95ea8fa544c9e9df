"""Which positions of a batch do any work, computed once from masks and lengths.

Position t takes part in step k only if some later loss depends on it: if t+k' is supervised for a k' with
k <= k' < K. The union over k is the *active* rows R. A query of any step sees the keys of step 0 up to its own
position, so the *key* rows P are all positions up to the last supervised one. Prompts, padding, holes and tails
get no rows, hence no time and no influence, and no row of one sample ever refers to another's. The embedding half of
step k at t is that of step 0 at t+k, which is active whenever it matters; where it is not, the row stands in for
itself and its value reaches no loss.
"""

from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from eyas_runtime.train.eagle3.batch import Batch
from eyas_runtime.train.eagle3.grid import Line


class KeyShares(NamedTuple):
    """How the key rows of a split plan are spread over the ranks of a sequence."""

    line: Line
    sizes: tuple[int, ...]
    """Of every rank; a rank's own key rows come first among its rows."""


class Plan(NamedTuple):
    """Row indices of one batch for K unrolled steps. Flat positions count the batch's own rows x T."""

    batch_size: int
    """Samples B."""
    blocks: tuple[tuple[int, int], ...]
    """Attention's layout, slot after slot: (n, span) is n causal blocks of `span` slots; no block sees another.

    A padded batch is B equal blocks; a packed one has a block for each sample with keys, as long as its keys.
    """
    key_rows: Tensor
    """int64 [P]: flat positions that have keys, ascending."""
    key_slots: Tensor
    """int64 [P]: the same in the attention's layout."""
    query_rows: Tensor
    """int64 [R]: indices into the key rows of the active positions, ascending."""
    query_slots: Tensor
    """int64 [R]: the active positions in the attention's layout."""
    embed_rows: Tensor
    """int64 [E]: indices into the key rows of the positions whose embedding half is shifted: the active ones first."""
    positions: Tensor
    """int64 [P]: t of each key row, counted from its own sample's start."""
    shifted: tuple[Tensor, ...]
    """K times int64 [R]: index into the embedding rows of the position t+k."""
    supervised: Tensor
    """int64 [N]: flat positions whose teacher is needed, ascending."""
    sample: Tensor
    """int64 [N]: the sample b of each supervised position."""
    offset: Tensor
    """int64 [N]: its t; the pair (supervised position s, step k) exists if k <= s."""
    pair_rows: Tensor
    """int64 [K, N]: index into the active rows of t-k, or -1 where there is none."""
    shares: KeyShares | None = None
    """Of a split plan (`split`): rows are this rank's, but `key_slots` are those of all ranks, rank after rank."""


class _Grid(NamedTuple):
    """Which sample every flat position belongs to, and where in it: int64 [rows x T] each."""

    sample: Tensor
    column: Tensor


def make_plan(batch: Batch, steps: int) -> Plan:
    """Plan `steps` unrolled steps of `batch`; the index tensors are on the batch's device."""
    device, b = batch.loss_mask.device, len(batch.starts)
    grid = _grid(batch)
    live = torch.tensor([w != 0 for w in batch.weights])
    supervised = batch.loss_mask.cpu().flatten() & live[grid.sample]
    active = supervised.clone()
    for k in range(1, min(steps, supervised.numel())):
        active[:-k] |= supervised[k:] & (grid.sample[:-k] == grid.sample[k:])
    # Key slots of each sample: up to its last active position.
    ends = torch.zeros(b, dtype=torch.int64)
    ends.scatter_reduce_(0, grid.sample, torch.where(active, grid.column + 1, 0), "amax")
    keys = grid.column < ends[grid.sample]
    key_flat, active_flat, supervised_flat = (mask.nonzero().squeeze(1) for mask in (keys, active, supervised))
    query_rows = torch.searchsorted(key_flat, active_flat)
    blocks = _blocks(ends.tolist(), batch.packed)
    if batch.packed:
        key_slots = torch.arange(key_flat.numel())
    else:
        key_slots = grid.sample[key_flat] * blocks[0][1] + grid.column[key_flat]
    # Row number of each flat position among the active ones; K places more, so that t+k can overrun.
    number = torch.full((keys.numel() + steps,), -1, dtype=torch.int64)
    number[active_flat] = torch.arange(active_flat.numel())
    sample, offset = grid.sample[supervised_flat], grid.column[supervised_flat]
    pairs = [torch.where(offset >= k, number[(supervised_flat - k).clamp_min(0)], -1) for k in range(steps)]
    return Plan(
        batch_size=b,
        blocks=blocks,
        key_rows=key_flat.to(device),
        key_slots=key_slots.to(device),
        query_rows=query_rows.to(device),
        query_slots=key_slots[query_rows].to(device),
        embed_rows=query_rows.to(device),
        positions=grid.column[key_flat].to(device),
        shifted=tuple(rows.to(device) for rows in _shifted(grid, active_flat, number, steps)),
        supervised=supervised_flat.to(device),
        sample=sample.to(device),
        offset=offset.to(device),
        pair_rows=torch.stack(pairs).to(device),
    )


def _grid(batch: Batch) -> _Grid:
    starts, total = torch.tensor(batch.starts), batch.loss_mask.numel()
    sizes = torch.diff(starts, append=torch.tensor([total]))
    sample = torch.repeat_interleave(torch.arange(len(batch.starts)), sizes)
    return _Grid(sample, torch.arange(total) - starts[sample])


def _blocks(ends: list[int], packed: bool) -> tuple[tuple[int, int], ...]:
    if not packed:
        return ((len(ends), max(*ends, 1)),)
    runs = tuple((len(list(equal)), span) for span, equal in groupby(end for end in ends if end))
    return runs or ((1, 1),)


def _shifted(grid: _Grid, active: Tensor, number: Tensor, steps: int) -> list[Tensor]:
    rows, owner = torch.arange(active.numel()), grid.sample[active]
    # Past the last position there is nobody's token.
    beyond = torch.cat((grid.sample, torch.full((steps,), -1)))
    shifted = []
    for k in range(steps):
        ahead = torch.where(beyond[active + k] == owner, number[active + k], -1)
        shifted.append(torch.where(ahead >= 0, ahead, rows))
    return shifted
