"""The order of a job: a permutation in each epoch, windows and groups that tile the sequence."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_runtime.core.sequence import Schedule, permute, position_of

SIZES = st.integers(1, 400)
SEEDS = st.integers(0, 2**63)


def _schedule(**changes: int | None) -> Schedule:
    values: dict[str, int | None] = {
        "prompts": 10,
        "window_size": 4,
        "group_size": 3,
        "epochs": 2,
        "max_steps": None,
        "seed": 7,
    }
    return Schedule(**{**values, **changes})  # type: ignore[arg-type]


@given(size=SIZES, seed=SEEDS, epoch=st.integers(0, 1000))
def test_every_epoch_walks_every_prompt_once(size: int, seed: int, epoch: int) -> None:
    order = [permute(position, size, seed=seed, epoch=epoch) for position in range(size)]
    assert sorted(order) == list(range(size))
    assert [position_of(value, size, seed=seed, epoch=epoch) for value in order] == list(range(size))


def test_order_is_fixed_for_ever() -> None:
    """A changed order would be another run: these numbers may never change."""
    assert [permute(position, 12, seed=42, epoch=0) for position in range(12)] == ORDER_42_0
    assert [permute(position, 12, seed=42, epoch=1) for position in range(12)] == ORDER_42_1


ORDER_42_0 = [9, 3, 6, 5, 8, 4, 11, 7, 1, 2, 10, 0]
ORDER_42_1 = [2, 6, 9, 3, 8, 0, 10, 4, 5, 1, 11, 7]


def test_epochs_and_seeds_differ() -> None:
    orders = {
        tuple(permute(p, 50, seed=seed, epoch=epoch) for p in range(50)) for seed in range(5) for epoch in range(5)
    }
    assert len(orders) == 25


def test_positions_are_spread() -> None:
    """The mean distance between neighbours of a random order of n is about n / 3; an unshuffled one has 1."""
    order = [permute(position, 3000, seed=1, epoch=0) for position in range(3000)]
    mean = sum(abs(a - b) for a, b in pairwise(order)) / 2999
    assert 800 < mean < 1200


@given(
    prompts=st.integers(1, 60),
    window=st.integers(1, 9),
    group=st.integers(1, 9),
    epochs=st.integers(1, 3),
    cut=st.none() | st.integers(1, 30),
)
def test_windows_and_groups_tile_the_sequence(
    prompts: int, window: int, group: int, epochs: int, cut: int | None
) -> None:
    schedule = _schedule(prompts=prompts, window_size=window, group_size=group, epochs=epochs, max_steps=cut)
    everything = list(range(schedule.total))
    assert [s for step in range(1, schedule.total_steps + 1) for s in schedule.window(step)] == everything
    assert [s for number in range(schedule.total_groups) for s in schedule.group(number)] == everything
    assert all(sequence in schedule.window(schedule.step_of(sequence)) for sequence in everything)
    assert all(sequence in schedule.group(schedule.group_of(sequence)) for sequence in everything)
    assert schedule.end_of(schedule.total_steps) == schedule.total
    assert schedule.end_of(0) == 0


@given(prompts=st.integers(1, 40), epochs=st.integers(1, 4), cut=st.none() | st.integers(1, 10))
def test_uses_of_a_prompt_are_the_sequence_numbers_that_use_it(prompts: int, epochs: int, cut: int | None) -> None:
    schedule = _schedule(prompts=prompts, epochs=epochs, max_steps=cut)
    for prompt in range(prompts):
        expected = tuple(s for s in range(schedule.total) if schedule.prompt_of(s) == prompt)
        assert schedule.sequences_of(prompt) == expected


def test_hazard_14_max_steps_cuts_the_sequence_and_nothing_is_left_over() -> None:
    assert _schedule(max_steps=3).total == 12
    assert _schedule(max_steps=99).total == 20
    assert _schedule(max_steps=3).total_steps == 3


def test_unprepared_sequence_is_empty_but_its_windows_have_ends() -> None:
    schedule = _schedule(prompts=0)
    assert (schedule.total, schedule.total_steps) == (0, 0)
    assert list(schedule.window(3)) == []
    assert schedule.end_of(3) == 12


@pytest.mark.parametrize("size", [1, 2, 3])
def test_smallest_sets_have_an_order(size: int) -> None:
    assert sorted(permute(p, size, seed=0, epoch=0) for p in range(size)) == list(range(size))
