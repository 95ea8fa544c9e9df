"""The supervisor's decisions as tables."""

import pytest

from eyas_runtime.supervisor.policy import Budget, Cause, Ended, Next, Progress, exit_code, judge


def end(code: int, *, slot: int = 0, cause: Cause = Cause.OWN) -> Ended:
    return Ended(slot=slot, process=f"{slot:032x}", code=code, cause=cause)


KILLED = end(-9, slot=1, cause=Cause.KILLED)


@pytest.mark.parametrize(
    ("ends", "stopping", "gang", "expected"),
    [
        pytest.param([end(0), end(0, slot=1)], False, True, (Next.LEAVE, 0), id="all done"),
        pytest.param([end(1), KILLED], False, True, (Next.RESTART, 1), id="crash"),
        pytest.param([end(-9)], False, False, (Next.RESTART, 137), id="killed from outside"),
        pytest.param([end(75), end(75, slot=1)], False, True, (Next.LEAVE, 75), id="drained"),
        pytest.param([end(75), KILLED], False, True, (Next.LEAVE, 75), id="temporary, sibling stuck"),
        pytest.param([end(1), end(78, slot=1)], False, True, (Next.LEAVE, 78), id="config wins over crash"),
        pytest.param([end(1), end(86, slot=1)], False, True, (Next.LEAVE, 86), id="fenced wins over crash"),
        pytest.param([end(0), KILLED], False, True, (Next.RESTART, 75), id="done beside a killed one is not done"),
        pytest.param([KILLED], False, True, (Next.RESTART, 137), id="closed incarnation"),
        pytest.param([KILLED], True, True, (Next.LEAVE, 137), id="killed after the grace"),
        pytest.param([end(-15)], True, False, (Next.LEAVE, 143), id="terminated by our SIGTERM"),
        pytest.param([end(0)], True, False, (Next.LEAVE, 75), id="stopped cleanly is not done"),
        pytest.param([end(0)], True, True, (Next.LEAVE, 0), id="ranks say themselves whether they are done"),
        pytest.param([end(1)], True, False, (Next.LEAVE, 1), id="no restart while stopping"),
    ],
)
def test_a_life_is_judged_by_its_first_own_failure(
    ends: list[Ended], stopping: bool, gang: bool, expected: tuple[Next, int]
) -> None:
    verdict = judge(ends, stopping=stopping, gang=gang)
    assert (verdict.next, verdict.code) == expected


def test_first_restart_is_immediate_later_ones_double_up_to_the_maximum() -> None:
    budget = Budget(restarts_max=6, base_seconds=1.0, max_seconds=5.0)
    pauses = []
    while spent := budget.spend(progressed=False):
        budget, pause = spent
        pauses.append(pause)
    assert pauses == [0.0, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_progress_gives_the_whole_budget_back() -> None:
    budget = Budget(restarts_max=1, base_seconds=1.0, max_seconds=5.0, used=1)
    assert budget.spend(progressed=False) is None
    spent = budget.spend(progressed=True)
    assert spent is not None
    assert (spent[0].used, spent[1]) == (1, 0.0)


def test_a_budget_of_zero_never_restarts() -> None:
    assert Budget(restarts_max=0, base_seconds=1.0, max_seconds=5.0).spend(progressed=True) is None


def test_only_a_higher_durable_step_is_progress_of_ranks() -> None:
    mark, moved = Progress().advance(durable_step=7, uptime_seconds=1e6)
    assert not moved
    mark, moved = mark.advance(durable_step=7, uptime_seconds=1e6)
    assert not moved
    mark, moved = mark.advance(durable_step=8, uptime_seconds=0.0)
    assert moved
    assert not mark.advance(durable_step=6, uptime_seconds=1e6)[1]


def test_roles_without_a_step_progress_by_uptime() -> None:
    assert not Progress().advance(durable_step=None, uptime_seconds=29.0)[1]
    assert Progress().advance(durable_step=None, uptime_seconds=30.0)[1]


def test_death_by_signal_is_reported_as_a_shell_does() -> None:
    assert [exit_code(code) for code in (0, 3, -9, -15)] == [0, 3, 137, 143]
