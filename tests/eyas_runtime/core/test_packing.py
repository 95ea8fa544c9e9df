"""Packs of a window: every live place once, every rank equally often, no more tokens than the budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_runtime.core.packing import EMPTY, packs
from eyas_runtime.core.windows import MicroBatch

windows = st.lists(st.one_of(st.none(), st.integers(1, 40)), max_size=40)
worlds = st.integers(1, 6)
budgets = st.integers(1, 60)


def load(pack: MicroBatch, tokens: list[int | None]) -> int:
    return sum(tokens[place] or 0 for place in pack if place is not None)


@given(tokens=windows, world=worlds, budget=budgets)
def test_every_live_place_is_in_exactly_one_pack_and_no_hole_is_in_any(
    tokens: list[int | None], world: int, budget: int
) -> None:
    ranks = packs(tokens, world=world, max_tokens=budget)
    placed = [place for mine in ranks for pack in mine for place in pack if place is not None]
    assert sorted(placed) == [place for place, count in enumerate(tokens) if count is not None]


@given(tokens=windows, world=worlds, budget=budgets)
def test_all_ranks_run_equally_many_packs_of_at_least_one_place(
    tokens: list[int | None], world: int, budget: int
) -> None:
    ranks = packs(tokens, world=world, max_tokens=budget)
    assert len(ranks) == world
    assert len({len(mine) for mine in ranks}) == 1
    assert ranks[0]
    assert all(pack == EMPTY or (pack and None not in pack) for mine in ranks for pack in mine)


@given(tokens=windows, world=worlds, budget=budgets)
def test_a_pack_of_several_samples_keeps_the_budget_and_a_longer_sample_is_alone(
    tokens: list[int | None], world: int, budget: int
) -> None:
    for mine in packs(tokens, world=world, max_tokens=budget):
        for pack in mine:
            assert len(pack) == 1 or load(pack, tokens) <= budget
            assert list(pack) == sorted(pack, key=lambda place: place or 0)


@given(tokens=windows, world=worlds, budget=budgets, holes=st.lists(st.integers(0, 40), max_size=5))
def test_holes_change_no_pack(tokens: list[int | None], world: int, budget: int, holes: list[int]) -> None:
    with_holes = list(tokens)
    for hole in sorted(hole for hole in holes if hole <= len(tokens)):
        with_holes.insert(hole, None)
    live = [place for place, count in enumerate(tokens) if count is not None]
    moved = [place for place, count in enumerate(with_holes) if count is not None]
    names = dict(zip(moved, live, strict=True))
    without = packs(tokens, world=world, max_tokens=budget)
    found = packs(with_holes, world=world, max_tokens=budget)
    assert without == tuple(
        tuple(tuple(None if place is None else names[place] for place in pack) for pack in mine) for mine in found
    )


@given(tokens=st.lists(st.integers(1, 10), min_size=1, max_size=60), world=st.integers(1, 4))
def test_short_samples_fill_at_least_half_of_the_turns_room_but_for_the_last(tokens: list[int], world: int) -> None:
    budget = 40
    ranks = packs(tokens, world=world, max_tokens=budget)
    turns = len(ranks[0])
    assert (turns - 1) * world * budget / 2 < sum(tokens)


def test_packs_that_run_side_by_side_are_level() -> None:
    tokens: list[int | None] = [100, 90, 80, 70, 60, 50, 40, 30, 20, 10]
    ranks = packs(tokens, world=2, max_tokens=150)
    assert ranks == (((0, 7, 8), (2, 5)), ((1, 6, 9), (3, 4)))
    assert [[load(pack, tokens) for pack in mine] for mine in ranks] == [[150, 130], [140, 130]]


def test_a_window_of_one_long_sample_leaves_the_other_ranks_empty() -> None:
    assert packs([500, None], world=3, max_tokens=100) == (((0,),), (EMPTY,), (EMPTY,))


def test_a_window_of_holes_is_one_empty_turn() -> None:
    assert packs([None, None], world=2, max_tokens=100) == ((EMPTY,), (EMPTY,))
    assert packs([], world=2, max_tokens=100) == ((EMPTY,), (EMPTY,))


def test_a_sample_as_long_as_the_budget_fits_and_shares_with_nobody() -> None:
    assert packs([10, 10, 1], world=1, max_tokens=10) == (((0,), (1,), (2,)),)


def test_the_largest_window_is_packed_in_few_attempts() -> None:
    tokens: list[int | None] = [1 + (i * 7919) % 64 for i in range(65_536)]
    ranks = packs(tokens, world=8, max_tokens=64)
    assert all(load(pack, tokens) <= 64 for mine in ranks for pack in mine)


@pytest.mark.parametrize(("world", "budget"), [(0, 10), (2, 0), (-1, 10)])
def test_impossible_packs_are_refused(world: int, budget: int) -> None:
    with pytest.raises(ValueError, match="no packs"):
        packs([1], world=world, max_tokens=budget)
