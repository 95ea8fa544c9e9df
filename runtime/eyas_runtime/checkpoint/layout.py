"""The layout: for every tensor of a checkpoint, its dtype, its shape, and which bytes of which file hold which box.

Pure. Boxes of a tensor are disjoint and cover it exactly; `build` proves that before a manifest can name them, and
`decode` again before anything is read. Any world size reads any box: `overlaps` says which bytes it needs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Corrupt
from eyas_runtime.checkpoint.pieces import ITEM_BYTES, Box

LAYOUT_BYTES_MAX: Final = 64 << 20
SCHEMA: Final = 1


class StoredBox(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One box of a tensor and its bytes' place."""

    file: str
    offset: tuple[int, ...]
    extent: tuple[int, ...]
    begin: int
    end: int


class StoredTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor, boxes in order of their offsets."""

    dtype: str
    shape: tuple[int, ...]
    boxes: tuple[StoredBox, ...]


class Layout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All tensors of a checkpoint by name."""

    schema: int = SCHEMA
    world_size: int
    tensors: dict[str, StoredTensor]


def build(world_size: int, shards: Mapping[str, Sequence[Box]]) -> Layout:
    """Merge the boxes found in every shard file. Raises `Corrupt` if they do not tile their tensors exactly."""
    merged: dict[str, tuple[str, tuple[int, ...], list[StoredBox]]] = {}
    for file in sorted(shards):
        for box in shards[file]:
            dtype, shape, boxes = merged.setdefault(box.name, (box.dtype, box.shape, []))
            if (dtype, shape) != (box.dtype, box.shape):
                raise Corrupt(f"tensor {box.name} is {box.dtype}{box.shape} in {file} and {dtype}{shape} elsewhere")
            boxes.append(StoredBox(file, box.offset, box.extent, box.begin, box.end))
    tensors = {
        name: StoredTensor(dtype, shape, tuple(sorted(boxes, key=lambda box: box.offset)))
        for name, (dtype, shape, boxes) in sorted(merged.items())
    }
    layout = Layout(world_size=world_size, tensors=tensors)
    check(layout)
    return layout


def encode(layout: Layout) -> bytes:
    """Deterministic JSON bytes."""
    return msgspec.json.format(msgspec.json.encode(layout, order="deterministic"), indent=1)


def decode(raw: bytes | bytearray) -> Layout:
    """Decode and check. Raises `Corrupt`."""
    try:
        layout = msgspec.json.decode(raw, type=Layout)
    except UNDECODABLE as error:
        raise Corrupt(f"layout.json is not a layout: {error}") from error
    if layout.schema != SCHEMA:
        raise Corrupt(f"layout.json has schema {layout.schema}; this version reads {SCHEMA}")
    check(layout)
    return layout


def check(layout: Layout) -> None:
    """Raise `Corrupt` unless the boxes of every tensor are disjoint, inside it, and cover it."""
    for name, tensor in layout.tensors.items():
        if tensor.dtype not in ITEM_BYTES:
            raise Corrupt(f"tensor {name} has the unknown dtype {tensor.dtype!r}")
        volume = 0
        for box in tensor.boxes:
            inside = len(box.offset) == len(box.extent) == len(tensor.shape) and all(
                o >= 0 and e >= 1 and o + e <= s for o, e, s in zip(box.offset, box.extent, tensor.shape, strict=True)
            )
            if not inside or box.end - box.begin != math.prod(box.extent) * ITEM_BYTES[tensor.dtype]:
                raise Corrupt(f"tensor {name} has a box that does not fit it, in {box.file}")
            volume += math.prod(box.extent)
        if volume != math.prod(tensor.shape) or _any_overlap(tensor.boxes):
            raise Corrupt(f"the boxes of tensor {name} do not cover it exactly once")


def _any_overlap(boxes: Sequence[StoredBox]) -> bool:
    # In order of offsets a box can only meet those that begin before it ends in the first dimension, so shards cut
    # by rows are compared with their neighbour alone.
    ordered = sorted(boxes, key=lambda box: box.offset)
    for index, a in enumerate(ordered):
        for b in ordered[index + 1 :]:
            if a.offset and b.offset[0] >= a.offset[0] + a.extent[0]:
                break
            if intersection(a.offset, a.extent, b.offset, b.extent) is not None:
                return True
    return False


def intersection(
    offset_a: Sequence[int], extent_a: Sequence[int], offset_b: Sequence[int], extent_b: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """(offset, extent) of what two boxes share, or None. A scalar's empty boxes share everything."""
    begin = tuple(max(a, b) for a, b in zip(offset_a, offset_b, strict=True))
    end = tuple(min(a + n, b + m) for a, n, b, m in zip(offset_a, extent_a, offset_b, extent_b, strict=True))
    if any(e <= b for b, e in zip(begin, end, strict=True)):
        return None
    return begin, tuple(e - b for b, e in zip(begin, end, strict=True))


def overlaps(
    tensor: StoredTensor, offset: Sequence[int], extent: Sequence[int]
) -> Iterator[tuple[StoredBox, tuple[int, ...], tuple[int, ...]]]:
    """The stored boxes that share something with the wanted box, with (offset, extent) of what they share."""
    for box in tensor.boxes:
        shared = intersection(box.offset, box.extent, offset, extent)
        if shared is not None:
            yield box, *shared
