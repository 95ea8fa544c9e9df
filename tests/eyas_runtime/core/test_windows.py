"""Shares of a window: every place once, every rank equally often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_contract.wire import WindowEntry
from eyas_runtime.core.windows import content, micro_batches, share
from support.jobs import ref_for


@given(places=st.integers(0, 70), world=st.integers(1, 9), size=st.integers(1, 6))
def test_every_place_is_trained_by_exactly_one_rank(places: int, world: int, size: int) -> None:
    shares = [share(rank=rank, world=world, places=places, micro_batch_size=size) for rank in range(world)]
    trained = [place for mine in shares for batch in mine for place in batch if place is not None]
    assert sorted(trained) == list(range(places))


@given(places=st.integers(0, 70), world=st.integers(1, 9), size=st.integers(1, 6))
def test_all_ranks_run_the_same_number_of_batches_of_the_same_size(places: int, world: int, size: int) -> None:
    shares = [share(rank=rank, world=world, places=places, micro_batch_size=size) for rank in range(world)]
    count = micro_batches(places=places, world=world, micro_batch_size=size)
    assert {len(mine) for mine in shares} == {count}
    assert {len(batch) for mine in shares for batch in mine} == {size}
    assert (count - 1) * world * size < max(places, 1)


def test_loads_differ_by_one_place_at_most() -> None:
    shares = [share(rank=rank, world=4, places=10, micro_batch_size=2) for rank in range(4)]
    loads = [sum(place is not None for batch in mine for place in batch) for mine in shares]
    assert loads == [3, 3, 2, 2]


@pytest.mark.parametrize(("rank", "world", "places", "size"), [(2, 2, 4, 1), (-1, 2, 4, 1), (0, 0, 4, 1), (0, 1, 4, 0)])
def test_impossible_share_is_refused(rank: int, world: int, places: int, size: int) -> None:
    with pytest.raises(ValueError, match=r"rank|split"):
        share(rank=rank, world=world, places=places, micro_batch_size=size)


def test_content_has_exactly_the_places_with_holes_for_the_dead() -> None:
    refs = {sequence: ref_for("eyas.testjob0001.e1.g1." + "0" * 32, 1, sequence, 5) for sequence in (4, 6, 7)}
    entries = content(range(4, 8), refs, frozenset({5}))
    assert entries == tuple(WindowEntry(sequence=s, ref=refs.get(s)) for s in range(4, 8))
    with pytest.raises(KeyError):
        content(range(4, 8), refs, ())
