"""Where a rank stands among W = D x S x T ranks: data, sequence, tensor, the tensor place moving fastest.

The S x T ranks of one data place take the same samples. Sequence ranks split a sample's positions, tensor ranks the
heads, the inner width and the draft's vocabulary. Gradients of parameters are summed over the data and sequence
ranks that hold the same slices: the *shard* ranks, one for every tensor place. A grid of one sequence and one tensor
rank is the plain case: nothing here is asked then, and no group is made.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import torch.distributed as dist

from eyas_contract.errors import UserError
from eyas_runtime.train.eagle3.config import DraftConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The ranks along one dimension of the grid, this one among them; `group` is None for one rank."""

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None


ALONE: Final = Line()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """One rank's lines. `shard` is None where nothing is sharded: one rank, one plain module."""

    sequence: Line = ALONE
    tensor: Line = ALONE
    shard: dist.ProcessGroup | None = None
    """Ranks over which parameters are sharded and gradients summed."""
    world: dist.ProcessGroup | None = None
    """All ranks."""

    @property
    def counts(self) -> bool:
        """Whether this rank's sums enter the window's: tensor ranks all see the same rows, and one speaks."""
        return self.tensor.rank == 0


def grid_of(world: dist.ProcessGroup | None) -> Grid:
    """The plain grid: only data ranks."""
    return Grid(shard=world, world=world)


def check_world(*, world_size: int, sequence: int, tensor: int) -> None:
    """Raise `UserError` when the ranks cannot be laid out."""
    if world_size % (sequence * tensor):
        raise UserError(
            f"{world_size} ranks cannot be split by training.parallelism sequence {sequence} x tensor {tensor}: "
            "make consumers.replicas x consumers.processesPerPod a multiple of their product"
        )


def check_shape(config: DraftConfig, tensor: int) -> None:
    """Raise `UserError` when a draft of this shape cannot be split over `tensor` ranks."""
    sizes = {
        "attention heads": config.num_heads,
        "key-value heads": config.num_kv_heads,
        "intermediate size": config.intermediate_size,
        "draft vocabulary": config.draft_vocab_size,
    }
    for name, size in sizes.items():
        if size % tensor:
            raise UserError(
                f"training.parallelism.tensor {tensor} does not divide the draft's {name} ({size}): "
                "give a common divisor"
            )


def make_grid(world: dist.ProcessGroup, *, sequence: int, tensor: int, timeout_seconds: float | None = None) -> Grid:
    """Lay the ranks of the default group `world` out; every rank calls it with the same numbers.

    Raises `UserError` when the numbers do not fit.
    """
    rank, size = world.rank(), world.size()
    check_world(world_size=size, sequence=sequence, tensor=tensor)
    if sequence == tensor == 1:
        return grid_of(world)
    timeout = None if timeout_seconds is None else timedelta(seconds=timeout_seconds)
    per_sample = sequence * tensor
    shard = [list(range(t, size, tensor)) for t in range(tensor)]
    lines = [
        [first + t + s * tensor for s in range(sequence)] for first in range(0, size, per_sample) for t in range(tensor)
    ]
    rows = [list(range(first, first + tensor)) for first in range(0, size, tensor)]
    return Grid(
        sequence=_line(lines, rank, timeout),
        tensor=_line(rows, rank, timeout),
        shard=world if tensor == 1 else _line(shard, rank, timeout, even_alone=True).group,
        world=world,
    )


def _line(groups: list[list[int]], rank: int, timeout: timedelta | None, *, even_alone: bool = False) -> Line:
    """This rank's among `groups`; every rank makes all of them, in the same order."""
    mine = ALONE
    if len(groups[0]) == 1 and not even_alone:
        return mine
    for ranks in groups:
        group = dist.new_group(ranks, timeout=timeout)
        if rank in ranks:
            mine = Line(rank=ranks.index(rank), size=len(ranks), group=group)
    return mine
