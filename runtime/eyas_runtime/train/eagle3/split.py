"""One sequence rank's part of a plan.

The active rows are cut into S runs of equal length, and so are the passive key rows (prompts): a rank makes the
step-0 keys and values of its own rows, and hands them to the others once. All later steps are local to a row, except
the embedding half of step k at t, which is that of t+k: up to K-1 active rows beyond the end of a run, its *halo*,
have their embedding half made here as well. A loss belongs to the row that makes it, so each (position, step) pair is
on exactly one rank; the teacher of a position near a border is made on both sides.
"""

import torch
from torch import Tensor

from eyas_runtime.train.eagle3.grid import Line
from eyas_runtime.train.eagle3.plan import KeyShares, Plan


def split_plan(plan: Plan, line: Line) -> Plan:
    """The rows of `line.rank`; the plan itself for one rank."""
    if line.size == 1:
        return plan
    total = plan.query_rows.numel()
    first, last = _run(total, line.rank, line.size)
    device = plan.query_rows.device
    passive = torch.ones(plan.key_rows.numel(), dtype=torch.bool, device=device)
    passive[plan.query_rows] = False
    others = passive.nonzero().squeeze(1)
    owned = [_owned(plan.query_rows, others, rank, line.size) for rank in range(line.size)]
    halo = _halo(plan, first, last)
    mine = owned[line.rank]
    local = torch.cat((mine, plan.query_rows.index_select(0, halo)))
    count = last - first
    ahead = torch.arange(mine.numel(), local.numel(), device=device)
    here = (plan.pair_rows >= first) & (plan.pair_rows < last)
    needed = here.any(dim=0).nonzero().squeeze(1)
    return plan._replace(
        key_rows=plan.key_rows.index_select(0, local),
        key_slots=plan.key_slots.index_select(0, torch.cat(owned)),
        query_rows=torch.arange(count, device=device),
        query_slots=plan.query_slots[first:last],
        embed_rows=torch.cat((torch.arange(count, device=device), ahead)),
        positions=plan.positions.index_select(0, local),
        shifted=tuple(_renumbered(row[first:last], first, last, halo) for row in plan.shifted),
        supervised=plan.supervised.index_select(0, needed),
        sample=plan.sample.index_select(0, needed),
        offset=plan.offset.index_select(0, needed),
        pair_rows=torch.where(here, plan.pair_rows - first, -1).index_select(1, needed),
        shares=KeyShares(line, tuple(rows.numel() for rows in owned)),
    )


def _halo(plan: Plan, first: int, last: int) -> Tensor:
    """Active rows beyond the run [first, last) that some row of it is shifted to, ascending."""
    beyond = torch.zeros(plan.query_rows.numel(), dtype=torch.bool, device=plan.query_rows.device)
    for row in plan.shifted:
        beyond[row[first:last]] = True
    beyond[:last] = False
    return beyond.nonzero().squeeze(1)


def _run(total: int, rank: int, size: int) -> tuple[int, int]:
    return total * rank // size, total * (rank + 1) // size


def _owned(active: Tensor, passive: Tensor, rank: int, size: int) -> Tensor:
    """Key rows that `rank` makes: its active ones first, then its part of the others."""
    parts = [rows[slice(*_run(rows.numel(), rank, size))] for rows in (active, passive)]
    return torch.cat(parts)


def _renumbered(row: Tensor, first: int, last: int, halo: Tensor) -> Tensor:
    return torch.where(row < last, row - first, last - first + torch.searchsorted(halo, row.contiguous()))
