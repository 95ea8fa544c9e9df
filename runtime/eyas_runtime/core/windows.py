"""Which places of a window a rank trains: a pure function of (rank, world, places).

All ranks always run the same number of micro-batches of the same size, so that no collective ever waits for a rank
that had less to do; places that do not exist are padded with None, which weighs nothing. Any world size is legal.
"""

from collections.abc import Sequence

from eyas_contract.refs import SampleRef
from eyas_contract.wire import WindowEntry

MicroBatch = tuple[int | None, ...]
"""Indices of places of the window (0-based), or None for padding."""


def micro_batches(*, places: int, world: int, micro_batch_size: int) -> int:
    """How many micro-batches every rank runs for a window of `places` places: at least one."""
    if places < 0 or world < 1 or micro_batch_size < 1:
        raise ValueError(f"no split of {places} places over {world} ranks in batches of {micro_batch_size}")
    return max(1, -(-places // (world * micro_batch_size)))


def share(*, rank: int, world: int, places: int, micro_batch_size: int) -> tuple[MicroBatch, ...]:
    """Micro-batches of `rank`: place i belongs to rank i % world, in order.

    Striding keeps the ranks' loads equal when the last window is short, and gives each place to exactly one rank.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is outside 0..{world - 1}")
    count = micro_batches(places=places, world=world, micro_batch_size=micro_batch_size)
    mine = [place if place < places else None for place in range(rank, world * count * micro_batch_size, world)]
    return tuple(tuple(mine[i : i + micro_batch_size]) for i in range(0, len(mine), micro_batch_size))


def content(places: range, live: dict[int, SampleRef], dead: Sequence[int] | frozenset[int]) -> tuple[WindowEntry, ...]:
    """The entries of a window: exactly its places in order, a hole for each dead one.

    Raises `KeyError` when a place is neither live nor dead: such a window is not ready and must not be sealed.
    """
    holes = frozenset(dead)
    return tuple(
        WindowEntry(sequence=sequence, ref=None if sequence in holes else live[sequence]) for sequence in places
    )
