"""Which capture counts where ranks share samples: of each place the newest that any of them was given. Pure.

Ranks that split one sample among them (by positions or by heads) read it on their own. When its bytes are lost between
two of those reads, one rank holds the old capture and the other is given a new one, and the two need not be equal. So
the ranks tell each other what they hold, and none goes on before all that share a place hold the same.
"""

import struct
from collections.abc import Sequence
from typing import Final

NOT_MINE: Final = -1
"""In the place of a generation: this rank has nothing to do with the place."""
_BYTES: Final = 8


def encode(generations: Sequence[int]) -> bytes:
    """Eight bytes a place."""
    return struct.pack(f"<{len(generations)}q", *generations)


def merge(parts: Sequence[bytes]) -> tuple[tuple[int, ...], frozenset[int]]:
    """What all ranks together say of each place, from the `encode` of each rank (all of one length).

    Returns the newest generation of each place, and the places of which two ranks hold different ones.
    """
    by_rank = [struct.unpack(f"<{len(part) // _BYTES}q", part) for part in parts]
    columns = list(zip(*by_rank, strict=True))
    disputed = frozenset(place for place, column in enumerate(columns) if len({*column} - {NOT_MINE}) > 1)
    return tuple(max(column) for column in columns), disputed
