"""Claims about what follows step w."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from eyas_contract.ids import Incarnation
from eyas_runtime.metadata.port import GangState
from eyas_runtime.metadata.service.orders import Checkpoint, Decision, Stop, Train, Wishes, decide

GANG = GangState(
    attempt=1,
    incarnation=Incarnation("0" * 32),
    open=True,
    checkpoint_step=0,
    checkpoint_directory="",
    world_size=1,
    orders_given=0,
    sealed_step=0,
    acked_step=0,
    durable_step=0,
    checkpoint_ordered_step=0,
    ordered_step=0,
    ending=False,
)


def gang(**changes: Any) -> GangState:  # noqa: ANN401
    return msgspec.structs.replace(GANG, **changes)


def ask(
    state: GangState,
    *,
    total: int = 100,
    every: int = 50,
    drain: bool = False,
    pressure: bool = False,
    ready: bool = True,
    trained: int | None = None,
    evaluating: bool = False,
    best: bool = False,
) -> Decision | None:
    since = state.ordered_step - state.durable_step if trained is None else trained
    wishes = Wishes(
        every_steps=every, drain=drain, pressure=pressure, trained_since_durable=since, evaluating=evaluating, best=best
    )
    return decide(state, total_steps=total, wishes=wishes, window_ready=ready)


def scheduled_checkpoints(*, start: int, total: int, every: int, commits_after: int = 0) -> list[int]:
    """Steps of the checkpoints that a gang from `start` on is ordered, each committed `commits_after` steps later."""
    state = gang(checkpoint_step=start, durable_step=start, ordered_step=start)
    steps = []
    for _ in range(10 * total):
        decision = ask(state, total=total, every=every)
        if isinstance(decision, Train):
            state = msgspec.structs.replace(state, ordered_step=decision.step, acked_step=decision.step)
        elif isinstance(decision, Checkpoint):
            steps.append(decision.step)
            state = msgspec.structs.replace(state, checkpoint_ordered_step=decision.step, ending=decision.last)
        elif isinstance(decision, Stop) or state.ending:
            return steps
        flying = state.checkpoint_ordered_step
        if flying and (decision is None or state.ordered_step >= flying + commits_after):
            state = msgspec.structs.replace(state, checkpoint_ordered_step=0, durable_step=flying)
    raise AssertionError("the gang never ends")


def test_the_next_window_is_trained_when_it_is_ready() -> None:
    assert ask(gang()) == Train(step=1)
    assert ask(gang(), ready=False) is None


def test_nothing_is_ordered_before_the_inputs_are_prepared() -> None:
    assert ask(gang(), total=0) is None


def test_hazard_41_the_first_checkpoint_comes_after_the_first_new_step_and_the_distance_doubles() -> None:
    assert scheduled_checkpoints(start=0, total=100, every=16) == [1, 3, 7, 15, 31, 47, 63, 79, 95, 100]


def test_hazard_41_a_restart_makes_the_distance_small_again() -> None:
    assert scheduled_checkpoints(start=40, total=60, every=50) == [41, 43, 47, 55, 60]


def test_hazard_41_the_durable_step_advances_when_every_incarnation_dies_after_two_steps() -> None:
    durable = 0
    for _ in range(50):
        state = gang(checkpoint_step=durable, durable_step=durable, ordered_step=durable)
        for _ in range(2):
            decision = ask(state, every=50)
            if isinstance(decision, Train):
                state = msgspec.structs.replace(state, ordered_step=decision.step)
            elif isinstance(decision, Checkpoint):
                durable = decision.step
    assert durable >= 50


def test_only_one_checkpoint_is_in_flight() -> None:
    assert ask(gang(ordered_step=60, checkpoint_ordered_step=5, durable_step=1)) == Train(step=61)


def test_slow_commits_still_let_the_distance_grow_and_the_end_come() -> None:
    steps = scheduled_checkpoints(start=0, total=100, every=10, commits_after=3)
    assert steps[0] == 1
    assert steps[-1] == 100
    assert all(1 <= later - earlier <= 14 for earlier, later in pairwise(steps))


def test_hazard_36_a_due_checkpoint_does_not_wait_for_the_window_that_waits_for_it() -> None:
    assert ask(gang(ordered_step=1), ready=False) == Checkpoint(step=1, last=False, reason="schedule")
    state = gang(checkpoint_step=0, durable_step=20, ordered_step=22)
    assert ask(state, ready=False, pressure=True) == Checkpoint(step=22, last=False, reason="pressure")


def test_hazard_36_a_drain_is_ordered_without_waiting_for_the_next_window() -> None:
    state = gang(durable_step=20, ordered_step=22)
    for ready in (True, False):
        assert ask(state, drain=True, ready=ready) == Checkpoint(step=22, last=True, reason="drain")


def test_a_drain_at_a_durable_step_stops_at_once() -> None:
    assert ask(gang(durable_step=22, ordered_step=22), drain=True) == Stop(step=22, reason="drain")


def test_a_drain_waits_for_the_checkpoint_in_flight_and_trains_nothing_meanwhile() -> None:
    assert ask(gang(durable_step=20, ordered_step=22, checkpoint_ordered_step=21), drain=True) is None


def test_pressure_orders_nothing_when_no_step_would_become_durable() -> None:
    assert ask(gang(durable_step=22, ordered_step=22), pressure=True, ready=False) is None


def test_the_last_step_is_followed_by_a_checkpoint_that_stops() -> None:
    assert ask(gang(ordered_step=100, durable_step=99)) == Checkpoint(step=100, last=True, reason="complete")


def test_a_complete_job_is_told_to_stop_at_its_first_question() -> None:
    state = gang(checkpoint_step=100, durable_step=100, ordered_step=100)
    assert ask(state) == Stop(step=100, reason="complete")


@pytest.mark.parametrize("drain", [False, True])
def test_nothing_follows_the_last_order(drain: bool) -> None:
    assert ask(gang(ordered_step=5, ending=True), drain=drain) is None


def test_best_evaluation_is_followed_by_a_checkpoint_at_its_own_boundary() -> None:
    state = gang(ordered_step=6, acked_step=6, durable_step=5, checkpoint_step=1)
    assert ask(state, best=True) == Checkpoint(step=6, last=False, reason="best")
    assert ask(state, best=False) == Train(step=7)
    ordered = msgspec.structs.replace(state, checkpoint_ordered_step=6)
    assert ask(ordered, best=True) == Train(step=7)
    assert ask(msgspec.structs.replace(state, durable_step=6), best=True) == Train(step=7)


def test_best_evaluation_waits_for_the_checkpoint_in_flight_and_trains_nothing_meanwhile() -> None:
    """A checkpoint one window later would hold other weights than those that were measured."""
    assert ask(gang(ordered_step=6, acked_step=6, checkpoint_ordered_step=4, durable_step=3), best=True) is None


def test_scheduled_distance_counts_optimizer_steps_and_a_young_incarnation_every_window() -> None:
    old = gang(ordered_step=60, acked_step=60, durable_step=30, checkpoint_step=0)
    assert ask(old, every=16, trained=15) == Train(step=61)
    assert ask(old, every=16, trained=16) == Checkpoint(step=60, last=False, reason="schedule")
    young = gang(ordered_step=31, acked_step=31, durable_step=30, checkpoint_step=30)
    assert ask(young, every=16, trained=0) == Checkpoint(step=31, last=False, reason="schedule")
    assert ask(young, every=16, trained=0, evaluating=True) == Checkpoint(step=31, last=False, reason="schedule")


@pytest.mark.parametrize("every", [1, 2, 3, 50])
def test_long_evaluation_becomes_durable_window_by_window_when_every_incarnation_dies_in_it(every: int) -> None:
    """No optimizer step is made in windows 3 to 100: every life of three windows leaves at least one of them behind."""
    durable = 2
    for _ in range(98):
        state = gang(checkpoint_step=durable, durable_step=durable, ordered_step=durable)
        for _ in range(6):
            decision = ask(state, total=101, every=every, trained=0, evaluating=True)
            if isinstance(decision, Train) and decision.step <= min(100, state.checkpoint_step + 3):
                state = msgspec.structs.replace(state, ordered_step=decision.step, acked_step=decision.step)
            elif isinstance(decision, Checkpoint):
                state = msgspec.structs.replace(state, durable_step=decision.step)
        assert state.durable_step > durable or durable == 100
        durable = state.durable_step
    assert durable == 100


def test_evaluation_in_a_long_life_is_durable_every_so_many_windows() -> None:
    state = gang(ordered_step=45, acked_step=45, durable_step=30, checkpoint_step=0)
    assert ask(state, every=16, trained=1, evaluating=True) == Train(step=46)
    state = msgspec.structs.replace(state, ordered_step=46, acked_step=46)
    assert ask(state, every=16, trained=1, evaluating=True) == Checkpoint(step=46, last=False, reason="schedule")
