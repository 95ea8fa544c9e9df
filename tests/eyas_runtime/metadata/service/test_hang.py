"""Claims about the hang lease, in virtual time (hazards 25 and 39)."""

from dataclasses import replace
from typing import Any

import pytest

from eyas_contract.errors import UserError
from eyas_runtime.metadata.service.hang import HangLease, Situation

TICK = 0.25
WORKING = Situation(incarnation="i1", world_size=2, stepped=True, due=True, checkpoint_step=0)


def _with(**changes: Any) -> Situation:  # noqa: ANN401
    return replace(WORKING, **changes)


def hang_lease() -> HangLease:
    return HangLease(floor_seconds=60.0, startup_seconds=1800.0, checkpoint_seconds=600.0)


def first_hang(lease: HangLease, situation: Situation, *, start: float, end: float, beats: dict[int, bool]) -> float:
    """Tick with heartbeats every 2 s (`beats[rank]`: does that rank's counter move?); when it hangs, or infinity."""
    now = start
    while now <= end:
        if now % 2.0 < TICK:
            for rank, moves in beats.items():
                lease.beat(situation.incarnation, rank, int(now) if moves else 0, now=now)
        if lease.tick(situation, now=now) is not None:
            return now
        now += TICK
    return float("inf")


def test_work_of_every_rank_keeps_the_gang_alive() -> None:
    assert first_hang(hang_lease(), WORKING, start=0.0, end=1000.0, beats={0: True, 1: True}) == float("inf")


def test_one_rank_whose_counter_stands_still_hangs_the_gang() -> None:
    when = first_hang(hang_lease(), WORKING, start=0.0, end=1000.0, beats={0: True, 1: False})
    assert 60.0 < when <= 66.0


def test_a_rank_that_never_reports_hangs_the_gang() -> None:
    assert first_hang(hang_lease(), WORKING, start=0.0, end=1000.0, beats={0: True}) < 66.0


def test_the_message_names_the_ranks_that_stand_still() -> None:
    lease = hang_lease()
    lease.tick(WORKING, now=0.0)
    why = None
    for step in range(1, 600):
        lease.beat("i1", 0, step, now=step * TICK)
        why = why or lease.tick(WORKING, now=step * TICK)
    assert why is not None
    assert "rank 1 " in why


def test_an_incarnation_found_at_the_start_hangs_only_after_somebody_of_it_was_heard() -> None:
    lease = hang_lease()
    lease.adopt("i1")
    assert first_hang(lease, WORKING, start=0.0, end=500.0, beats={}) == float("inf"), "its pods died with the service"
    lease.heard("i1")
    assert 560.0 <= first_hang(lease, WORKING, start=500.25, end=1000.0, beats={}) <= 561.0


def test_a_heartbeat_of_an_adopted_incarnation_starts_its_term() -> None:
    lease = hang_lease()
    lease.adopt("i1")
    assert first_hang(lease, WORKING, start=0.0, end=1000.0, beats={0: True}) < 66.0


def test_nothing_due_is_no_hang_however_long_it_lasts() -> None:
    assert first_hang(hang_lease(), _with(due=False), start=0.0, end=5000.0, beats={}) == float("inf")


def test_slow_steps_lengthen_the_term_to_ten_medians() -> None:
    lease = hang_lease()
    for seconds in (20.0, 20.0, 500.0):
        lease.remember(seconds)
    assert lease.term_seconds(stepped=True) == 200.0
    when = first_hang(lease, WORKING, start=0.0, end=1000.0, beats={0: True, 1: False})
    assert 200.0 < when <= 206.0


@pytest.mark.parametrize("nonsense", [None, float("nan"), float("inf"), -1.0, 0.0])
def test_nonsense_durations_do_not_change_the_term(nonsense: float | None) -> None:
    lease = hang_lease()
    lease.remember(nonsense)
    assert lease.term_seconds(stepped=True) == 60.0


def test_until_the_first_step_only_the_startup_deadline_applies() -> None:
    starting = _with(stepped=False)
    when = first_hang(hang_lease(), starting, start=0.0, end=4000.0, beats={0: True, 1: False})
    assert 1800.0 < when <= 1801.0


def test_an_ack_counts_as_work_of_every_rank() -> None:
    lease = hang_lease()
    lease.tick(WORKING, now=0.0)
    for step in range(1, 100):
        lease.acked("i1", 30.0, now=step * 30.0)
        for tick in range(120):
            assert lease.tick(WORKING, now=step * 30.0 + tick * TICK) is None


def test_a_checkpoint_that_is_not_committed_in_its_deadline_hangs_although_ranks_work() -> None:
    saving = _with(checkpoint_step=7)
    when = first_hang(hang_lease(), saving, start=0.0, end=2000.0, beats={0: True, 1: True})
    assert 600.0 < when <= 601.0


def test_a_checkpoint_that_is_not_committed_hangs_even_when_no_window_is_due() -> None:
    saving = _with(checkpoint_step=7, due=False)
    assert first_hang(hang_lease(), saving, start=0.0, end=2000.0, beats={}) <= 601.0


def test_the_next_checkpoint_has_a_deadline_of_its_own() -> None:
    lease = hang_lease()
    beats = {0: True, 1: True}
    assert first_hang(lease, _with(checkpoint_step=7), start=0.0, end=500.0, beats=beats) == float("inf")
    assert first_hang(lease, _with(checkpoint_step=14), start=500.25, end=1100.0, beats=beats) == float("inf")


def test_a_new_incarnation_starts_anew() -> None:
    lease = hang_lease()
    assert first_hang(lease, WORKING, start=0.0, end=59.0, beats={0: True, 1: False}) == float("inf")
    again = _with(incarnation="i2")
    assert 119.0 < first_hang(lease, again, start=59.25, end=1000.0, beats={0: True, 1: False}) < 126.0


def test_a_gap_in_the_ticks_is_not_held_against_the_gang() -> None:
    lease = hang_lease()
    lease.tick(_with(checkpoint_step=3), now=0.0)
    assert lease.tick(_with(checkpoint_step=3), now=7200.0) is None
    assert lease.tick(_with(checkpoint_step=3), now=7200.25) is None


def test_a_counter_that_goes_back_is_no_work() -> None:
    lease = hang_lease()
    one = _with(world_size=1)
    lease.beat("i1", 0, 100, now=0.0)
    lease.tick(one, now=0.0)
    hung = False
    for step in range(1, 300):
        lease.beat("i1", 0, 100 - step % 50, now=step * TICK)
        hung = hung or lease.tick(one, now=step * TICK) is not None
    assert hung


def test_an_impossible_rank_is_refused() -> None:
    with pytest.raises(UserError, match="rank -1"):
        hang_lease().beat("i1", -1, 1, now=0.0)
