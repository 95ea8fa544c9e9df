"""Which samples of a window share a micro-batch when they are packed: a pure function of token counts and the world.

As trainers' `packing` does, a micro-batch takes samples until a budget of tokens is full, so its cost and its memory
follow tokens and not the longest sample. Every rank computes the packs of all ranks from the window's refs alone; all
run equally many, and in each turn the packs that run side by side are close in tokens, so that none waits long for
another. Holes are in no pack.
"""

import heapq
from collections.abc import Sequence
from typing import Final

from eyas_runtime.core.windows import MicroBatch

EMPTY: Final[MicroBatch] = (None,)
"""The micro-batch of a rank that has nothing in a turn: it reduces with the others and weighs nothing."""


def packs(tokens: Sequence[int | None], *, world: int, max_tokens: int) -> tuple[tuple[MicroBatch, ...], ...]:
    """Micro-batches of every rank, rank 0 first, for places of so many `tokens` (None is a hole).

    Samples are dealt the longest first, each to the pack with the fewest tokens so far, over the first number of turns
    that leaves no pack of several samples above `max_tokens`; a longer sample is a pack of its own. Places ascend
    inside a pack, and packs that share a turn are neighbours in fullness. Raises `ValueError` for less
    than one rank or one token.
    """
    if world < 1 or max_tokens < 1:
        raise ValueError(f"no packs of {max_tokens} tokens over {world} ranks")
    live = sorted(((count, place) for place, count in enumerate(tokens) if count is not None), key=_longest_first)
    long = sum(count > max_tokens for count, _ in live)
    needed = long - (-sum(count for count, _ in live if count <= max_tokens) // max_tokens)
    turns = max(1, -(-needed // world))
    while (found := _level(live, turns * world, max_tokens)) is None:
        # By single turns while they are few; by a sixteenth later, so that a large window takes few attempts.
        turns += -(-turns // 16)
    return tuple(tuple(found[turn * world + rank] for turn in range(turns)) for rank in range(world))


def _longest_first(sample: tuple[int, int]) -> tuple[int, int]:
    count, place = sample
    return -count, place


def _level(live: Sequence[tuple[int, int]], count: int, max_tokens: int) -> list[MicroBatch] | None:
    """Samples dealt over `count` packs, fullest pack first; None if one of several samples is too full."""
    loads = [(0, number) for number in range(count)]
    members: list[list[int]] = [[] for _ in range(count)]
    for size, place in live:
        load, number = loads[0]
        if load and load + size > max_tokens:
            return None
        members[number].append(place)
        heapq.heapreplace(loads, (load + size, number))
    order = sorted(loads, key=_longest_first)
    return [tuple(sorted(members[number])) or EMPTY for _, number in order]
