"""Shares, denominators and verdicts of a window: pure, and the same on every rank."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_contract import wire
from eyas_contract.ids import ObjectKey, sample_id
from eyas_contract.refs import SampleRef
from eyas_runtime.train.ports import Code
from eyas_runtime.train.window import data_place, mine_of_prefetch, share_of


def ref(sequence: int, tokens: int = 10, supervised: int = 4) -> SampleRef:
    return SampleRef(
        sample_id=sample_id(sequence),
        sequence=sequence,
        key=ObjectKey("k"),
        generation=1,
        digest="",
        payload_digest="",
        length=1,
        num_tokens=tokens,
        num_supervised=supervised,
        feature_specs=(),
    )


def order(entries: list[SampleRef | None], *, step: int = 3) -> wire.Order:
    first = (step - 1) * 8
    return wire.Order(
        ordinal=0,
        kind="train",
        step=step,
        version=2,
        entries=tuple(wire.WindowEntry(sequence=first + i, ref=entry) for i, entry in enumerate(entries)),
    )


@given(
    holes=st.lists(st.booleans(), min_size=1, max_size=17),
    world_size=st.integers(1, 5),
    micro_batch_size=st.integers(1, 4),
)
def test_every_live_place_is_trained_by_exactly_one_rank_in_equally_many_batches(
    holes: list[bool], world_size: int, micro_batch_size: int
) -> None:
    window = order([None if hole else ref(16 + i) for i, hole in enumerate(holes)])
    shares = [
        share_of(window, rank=rank, world_size=world_size, micro_batch_size=micro_batch_size)
        for rank in range(world_size)
    ]
    assert len({tuple(len(batch) for batch in share.batches) for share in shares}) == 1
    places = [place for share in shares for place in share.mine()]
    assert sorted(places) == [i for i, hole in enumerate(holes) if not hole]


def ahead_of(refs: list[SampleRef]) -> wire.Order:
    """The order of the window before that of `refs`."""
    last = wire.WindowEntry(sequence=refs[0].sequence - 1, ref=None)
    return wire.Order(ordinal=0, kind="train", step=3, version=1, entries=(last,), prefetch=tuple(refs))


@given(start=st.integers(1, 40), world_size=st.integers(1, 5))
def test_what_is_fetched_ahead_is_what_the_rank_is_given_next(start: int, world_size: int) -> None:
    """Also where windows do not begin at multiples of their size, as behind a short one."""
    refs = [ref(start + i) for i in range(8)]
    places = tuple(wire.WindowEntry(sequence=entry.sequence, ref=entry) for entry in refs)
    now = wire.Order(ordinal=1, kind="train", step=4, version=1, entries=places)
    before = ahead_of(refs)
    for rank in range(world_size):
        share = share_of(now, rank=rank, world_size=world_size, micro_batch_size=1)
        ahead = mine_of_prefetch(before, window_size=8, rank=rank, world_size=world_size)
        assert set(ahead) == set(share.mine().values())


@given(tokens=st.lists(st.one_of(st.none(), st.integers(1, 30)), min_size=8, max_size=8), world_size=st.integers(1, 5))
def test_packed_shares_hold_every_live_place_once_in_equally_many_micro_batches(
    tokens: list[int | None], world_size: int
) -> None:
    window = order([None if count is None else ref(16 + i, tokens=count) for i, count in enumerate(tokens)])
    shares = [
        share_of(window, rank=rank, world_size=world_size, micro_batch_size=1, packing_tokens=32)
        for rank in range(world_size)
    ]
    assert len({len(share.batches) for share in shares}) == 1
    places = [place for share in shares for place in share.mine()]
    assert sorted(places) == [i for i, count in enumerate(tokens) if count is not None]


@given(tokens=st.lists(st.integers(1, 30), min_size=8, max_size=8), world_size=st.integers(1, 5))
def test_what_is_fetched_ahead_of_a_packed_window_is_what_the_rank_is_given(tokens: list[int], world_size: int) -> None:
    refs = [ref(16 + i, tokens=count) for i, count in enumerate(tokens)]
    for rank in range(world_size):
        mine = share_of(
            order(list(refs)), rank=rank, world_size=world_size, micro_batch_size=1, packing_tokens=32
        ).mine()
        ahead = mine_of_prefetch(ahead_of(refs), window_size=8, rank=rank, world_size=world_size, packing_tokens=32)
        assert set(ahead) == set(mine.values())


def test_nothing_is_fetched_ahead_of_a_packed_window_that_is_not_whole_but_by_a_rank_that_is_alone() -> None:
    refs = [ref(16 + i) for i in range(7)]
    assert mine_of_prefetch(ahead_of(refs), window_size=8, rank=0, world_size=2, packing_tokens=32) == ()
    assert mine_of_prefetch(ahead_of(refs), window_size=8, rank=0, world_size=1, packing_tokens=32) == tuple(refs)


def test_a_packed_sample_that_is_condemned_still_shapes_its_packs_and_leaves_the_denominator() -> None:
    window = order([ref(16, tokens=20), ref(17, tokens=5), ref(18, tokens=9)])
    share = share_of(window, rank=0, world_size=1, micro_batch_size=1, packing_tokens=25)
    assert share.batches == ((0,), (1, 2))
    assert share.denominator(bytes([0, Code.NOT_FINITE, 0]), "AllPositions") == 29.0


def test_hazard_13_the_denominator_counts_live_samples_of_all_ranks_and_nothing_that_is_padded() -> None:
    window = order([ref(16, tokens=10, supervised=4), None, ref(18, tokens=7, supervised=2), ref(19, tokens=100)])
    codes = bytes([0, 0, 0, Code.NOT_FINITE])
    for rank in range(3):
        share = share_of(window, rank=rank, world_size=3, micro_batch_size=2)
        assert share.denominator(codes, "AllPositions") == 17.0
        assert share.denominator(codes, "Supervised") == 6.0


def test_verdicts_name_sequence_step_and_reason() -> None:
    share = share_of(order([ref(16), ref(17), None]), rank=0, world_size=1, micro_batch_size=1)
    (verdict,) = share.verdicts(bytes([0, Code.LOSS_NOT_FINITE, 0]))
    assert (verdict.sequence, verdict.step) == (17, 3)
    assert "loss" in verdict.reason


@pytest.mark.parametrize("codes", [bytes([1, 1]), bytes([4, 2])])
def test_a_window_of_nothing_but_verdicts_has_no_live_sample(codes: bytes) -> None:
    share = share_of(order([ref(16), ref(17)]), rank=0, world_size=1, micro_batch_size=1)
    assert share.live(codes) == ()


def test_ranks_that_split_a_sample_take_the_same_places_and_each_place_goes_to_one_such_set() -> None:
    window = order([ref(16 + i) for i in range(5)])
    shares = []
    for rank in range(12):
        place, places = data_place(rank=rank, world_size=12, ranks_per_sample=4)
        shares.append(share_of(window, rank=place, world_size=places, micro_batch_size=1))
    taken = [tuple(share.mine()) for share in shares]
    assert all(taken[rank] == taken[rank - rank % 4] for rank in range(12))
    assert sorted(place for first in taken[::4] for place in first) == [0, 1, 2, 3, 4]
