"""Which dimension of which parameter the tensor ranks split, Megatron's way: a pure table.

Matrices that make heads, inner columns or logits are cut by rows, those that take them in by columns; so one sum
over the ranks per attention and one per MLP is all that a forward needs. Everything else (norms, `fc`) every rank has
whole, with the same bits, and gets the same gradient for.
"""

from collections.abc import Iterable
from typing import Final

from eyas_runtime.train.eagle3.grid import Line

SPLIT: Final[dict[str, int]] = {
    "midlayer.self_attn.q_proj.weight": 0,
    "midlayer.self_attn.k_proj.weight": 0,
    "midlayer.self_attn.v_proj.weight": 0,
    "midlayer.self_attn.o_proj.weight": 1,
    "midlayer.mlp.gate_proj.weight": 0,
    "midlayer.mlp.up_proj.weight": 0,
    "midlayer.mlp.down_proj.weight": 1,
    "lm_head.weight": 0,
}
"""Parameter to the dimension that is cut into equal runs, rank after rank."""


def slice_of(name: str, shape: Iterable[int], line: Line) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(shape, offset): of the whole parameter, and of this rank's slice in it. `shape` is the slice's."""
    extent = tuple(shape)
    cut = SPLIT.get(name) if line.size > 1 else None
    whole = tuple(n * line.size if i == cut else n for i, n in enumerate(extent))
    return whole, tuple(n * line.rank if i == cut else 0 for i, n in enumerate(extent))


def is_told_elsewhere(name: str, line: Line) -> bool:
    """Whether another tensor rank has the same parameter and speaks for it: in norms and in checkpoints."""
    return line.rank > 0 and name not in SPLIT
