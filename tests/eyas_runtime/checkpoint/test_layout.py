"""The layout proves that boxes tile their tensors, and finds the bytes of any other box."""

import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_contract.errors import Corrupt
from eyas_runtime.checkpoint import layout as layouts
from eyas_runtime.checkpoint.layout import Layout, StoredBox, StoredTensor
from eyas_runtime.checkpoint.pieces import Box


def boxes_of(shape: tuple[int, ...], cuts: list[list[int]]) -> list[Box]:
    """A grid of boxes of uint8, cut at the given positions of each dimension."""
    edges = [sorted({0, size, *(cut % size for cut in cut_list)}) for size, cut_list in zip(shape, cuts, strict=True)]
    spans = [list(itertools.pairwise(edge)) for edge in edges]
    found, position = [], 0
    for corner in itertools.product(*spans):
        offset = tuple(begin for begin, _ in corner)
        extent = tuple(end - begin for begin, end in corner)
        size = math.prod(extent)
        found.append(Box("t", "uint8", shape, offset, extent, position, position + size))
        position += size
    return found


shapes = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)
grids = shapes.flatmap(
    lambda shape: st.tuples(
        st.just(shape), st.tuples(*[st.lists(st.integers(0, 5), max_size=3) for _ in shape]).map(list)
    )
)


@given(grids)
def test_any_grid_of_boxes_is_accepted_and_every_hole_or_overlap_refused(
    grid: tuple[tuple[int, ...], list[list[int]]],
) -> None:
    boxes = boxes_of(*grid)
    layouts.build(1, {"f": boxes})
    with pytest.raises(Corrupt):
        layouts.build(1, {"f": boxes[1:]} if len(boxes) > 1 else {"f": [*boxes, *boxes]})
    with pytest.raises(Corrupt):
        layouts.build(1, {"f": [*boxes, boxes[0]]})


@given(grids, st.data())
def test_overlaps_cover_every_element_of_a_wanted_box_once(
    grid: tuple[tuple[int, ...], list[list[int]]], data: st.DataObject
) -> None:
    shape = grid[0]
    offset = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    extent = tuple(data.draw(st.integers(1, size - begin)) for size, begin in zip(shape, offset, strict=True))
    tensor = layouts.build(1, {"f": boxes_of(*grid)}).tensors["t"]
    shared = [part for _, begin, size in layouts.overlaps(tensor, offset, extent) for part in cells(begin, size)]
    assert sorted(shared) == sorted(cells(offset, extent))


def cells(offset: tuple[int, ...], extent: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*[range(o, o + e) for o, e in zip(offset, extent, strict=True)]))


def test_the_same_tensor_with_two_shapes_is_refused() -> None:
    one = Box("t", "uint8", (2,), (0,), (1,), 0, 1)
    two = Box("t", "uint8", (3,), (1,), (2,), 0, 2)
    with pytest.raises(Corrupt):
        layouts.build(2, {"a": [one], "b": [two]})


@pytest.mark.parametrize(
    "tensor",
    [
        StoredTensor("complex9", (1,), (StoredBox("f", (0,), (1,), 0, 8),)),
        StoredTensor("uint8", (2,), (StoredBox("f", (0,), (2,), 0, 3),)),
        StoredTensor("uint8", (2,), (StoredBox("f", (-1,), (3,), 0, 3),)),
        StoredTensor("uint8", (2,), (StoredBox("f", (1,), (2,), 0, 2),)),
        StoredTensor("uint8", (2, 1), (StoredBox("f", (0,), (2,), 0, 2),)),
    ],
    ids=["dtype", "bytes", "negative", "outside", "dimensions"],
)
def test_a_layout_that_contradicts_itself_is_refused_when_read(tensor: StoredTensor) -> None:
    raw = msgspec.json.encode(Layout(world_size=1, tensors={"t": tensor}))
    with pytest.raises(Corrupt):
        layouts.decode(raw)


def test_a_layout_of_another_version_is_refused() -> None:
    with pytest.raises(Corrupt, match="schema"):
        layouts.decode(msgspec.json.encode(Layout(schema=2, world_size=1, tensors={})))


def test_layout_bytes_do_not_depend_on_the_order_of_shards() -> None:
    one = Box("a", "uint8", (2,), (0,), (1,), 0, 1)
    two = Box("a", "uint8", (2,), (1,), (1,), 0, 1)
    assert layouts.encode(layouts.build(2, {"f": [one], "g": [two]})) == layouts.encode(
        layouts.build(2, {"g": [two], "f": [one]})
    )
