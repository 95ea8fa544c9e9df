"""Evaluation windows among training windows: against a plain enumeration, and against the job without evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_contract.errors import UserError
from eyas_runtime.core.rounds import Rounds
from eyas_runtime.core.sequence import Schedule


@dataclass(frozen=True)
class _Window:
    evaluation: bool
    training_step: int
    uses: tuple[int, ...]


def _pieces(numbers: range, size: int) -> list[tuple[int, ...]]:
    return [tuple(numbers[i : i + size]) for i in range(0, len(numbers), size)]


def _enumerate(rounds: Rounds) -> Iterator[_Window]:
    """All windows in order, by walking through them."""
    training = _pieces(range(rounds.samples), rounds.window_size)
    for number, uses in enumerate(training, start=1):
        yield _Window(False, number, uses)
        if number % rounds.every_steps == 0 or number == len(training):
            for part in _pieces(range(rounds.held_out), rounds.window_size):
                yield _Window(True, number, part)


def _groups(rounds: Rounds) -> list[tuple[bool, tuple[int, ...]]]:
    period = rounds.every_steps * rounds.window_size
    found = []
    for start in range(0, rounds.samples, period):
        stop = min(start + period, rounds.samples)
        found += [(False, piece) for piece in _pieces(range(start, stop), rounds.group_size)]
        found += [(True, piece) for piece in _pieces(range(rounds.held_out), rounds.group_size)]
    return found


@st.composite
def _rounds(draw: st.DrawFn) -> Rounds:
    group = draw(st.integers(1, 4))
    every = draw(st.integers(1, 4))
    window = draw(st.integers(1, 5)) * (1 if draw(st.booleans()) and every % group == 0 else group)
    return Rounds(
        samples=draw(st.integers(1, 120)),
        window_size=window,
        group_size=group,
        held_out=draw(st.integers(1, 25)),
        every_steps=every,
    )


def _schedule(rounds: Rounds, *, evaluate: bool, epochs: int = 1) -> Schedule:
    return Schedule(
        prompts=rounds.samples,
        window_size=rounds.window_size,
        group_size=rounds.group_size,
        epochs=epochs,
        max_steps=None,
        seed=3,
        held_out=rounds.held_out if evaluate else 0,
        evaluate_every=rounds.every_steps if evaluate else 0,
    )


@given(rounds=_rounds(), on=st.booleans())
def test_held_out_uses_are_told_by_arithmetic_and_counted(rounds: Rounds, on: bool) -> None:
    rounds = rounds if on else replace(rounds, every_steps=0)
    uses, pattern = [rounds.use_of(sequence)[0] for sequence in range(rounds.total)], rounds.pattern
    assert uses == [
        number % pattern.cycle >= pattern.offset or number >= pattern.last for number in range(rounds.total)
    ]
    assert [rounds.held_out_below(end) for end in range(rounds.total + 1)] == [
        sum(uses[:end]) for end in range(rounds.total + 1)
    ]


@given(rounds=_rounds())
def test_windows_are_those_of_a_walk_through_the_rounds(rounds: Rounds) -> None:
    schedule, expected = _schedule(rounds, evaluate=True), list(_enumerate(rounds))
    assert schedule.total_steps == rounds.windows == len(expected)
    sequence = 0
    for number, window in enumerate(expected, start=1):
        places = schedule.window(number)
        assert places == range(sequence, sequence + len(window.uses))
        assert [rounds.use_of(place) for place in places] == [(window.evaluation, use) for use in window.uses]
        assert {schedule.step_of(place) for place in places} == {number}
        assert rounds.training_step(number) == window.training_step
        assert (rounds.part(number) is not None) == window.evaluation
        assert schedule.end_of(number) == places.stop
        sequence = places.stop
    assert (sequence, schedule.end_of(0)) == (schedule.total, 0)
    assert list(schedule.window(len(expected) + 1)) == []


@given(rounds=_rounds())
def test_groups_are_those_of_a_walk_through_the_rounds(rounds: Rounds) -> None:
    schedule, expected = _schedule(rounds, evaluate=True), _groups(rounds)
    assert schedule.total_groups == len(expected)
    for number, (evaluation, uses) in enumerate(expected):
        members = schedule.group(number)
        assert [rounds.use_of(member) for member in members] == [(evaluation, use) for use in uses]
        assert {schedule.group_of(member) for member in members} == {number}
    assert list(schedule.group(len(expected))) == []


@given(rounds=_rounds(), epochs=st.integers(1, 3))
def test_training_is_that_of_the_job_without_evaluation(rounds: Rounds, epochs: int) -> None:
    """Same prompts in the same windows and the same capture groups: same bits."""
    with_, without = (_schedule(rounds, evaluate=flag, epochs=epochs) for flag in (True, False))
    steps = [n for n in range(1, with_.total_steps + 1) if with_.rounds.part(n) is None]
    windows = [[with_.prompt_of(s) for s in with_.window(n)] for n in steps]
    assert windows == [[without.prompt_of(s) for s in without.window(n)] for n in range(1, without.total_steps + 1)]
    assert [with_.rounds.training_step(n) for n in steps] == list(range(1, without.total_steps + 1))
    groups = [[with_.prompt_of(s) for s in with_.group(g)] for g in range(with_.total_groups)]
    training = [group for group in groups if group[0] < with_.prompts]
    assert training == [[without.prompt_of(s) for s in without.group(g)] for g in range(without.total_groups)]


@given(rounds=_rounds(), epochs=st.integers(1, 3))
def test_uses_of_a_prompt_are_the_sequence_numbers_that_use_it(rounds: Rounds, epochs: int) -> None:
    schedule = _schedule(rounds, evaluate=True, epochs=epochs)
    uses: dict[int, list[int]] = {}
    for sequence in range(schedule.total):
        uses.setdefault(schedule.prompt_of(sequence), []).append(sequence)
    for prompt in range(schedule.prompts + schedule.held_out):
        assert schedule.sequences_of(prompt) == tuple(uses[prompt])


@given(rounds=_rounds())
def test_last_part_of_every_round_is_marked(rounds: Rounds) -> None:
    parts = [part for n in range(1, rounds.windows + 1) if (part := rounds.part(n)) is not None]
    assert sum(part.is_last for part in parts) == rounds.count
    numbers = [part.number for part in parts]
    assert numbers == list(range(parts[0].of)) * rounds.count


@given(rounds=_rounds())
def test_runs_tile_the_sequence(rounds: Rounds) -> None:
    everything = [sequence for run in rounds.runs() for sequence in run.sequences]
    assert everything == list(range(rounds.total))


def test_groups_that_would_span_an_evaluation_are_refused() -> None:
    with pytest.raises(UserError, match="multiple"):
        Rounds(samples=20, window_size=3, group_size=2, held_out=1, every_steps=1)
    Rounds(samples=20, window_size=3, group_size=2, held_out=1, every_steps=2)
    Rounds(samples=20, window_size=3, group_size=2)
