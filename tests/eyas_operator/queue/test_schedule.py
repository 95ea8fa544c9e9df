"""The keyed queue's rules, by examples and by random walks against a model."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eyas_operator.queue.schedule import BACKOFF_MAX_SECONDS, HEAD_START_SECONDS, Schedule, backoff_seconds

KEYS = "abcd"


def test_a_key_that_is_woken_twice_is_handed_out_once() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.wake("a", 0.0)
    schedule.wake("a", 0.0)
    assert schedule.take(0.0) == "a"
    assert schedule.take(0.0) is None
    schedule.done("a", 1.0, None)
    assert schedule.take(1.0) is None
    assert len(schedule) == 0


def test_a_wake_up_during_a_pass_causes_another_pass_at_once() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.wake("a", 0.0)
    assert schedule.take(0.0) == "a"
    schedule.wake("a", 1.0)
    assert schedule.take(1.0) is None
    schedule.done("a", 2.0, 60.0)
    assert schedule.next_due() == 1.0
    assert schedule.take(2.0) == "a"


def test_a_wake_up_only_ever_brings_a_look_forward() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.wake("a", 0.0, 5.0)
    schedule.wake("a", 0.0, 60.0)
    assert schedule.next_due() == 5.0
    schedule.wake("a", 1.0, 1.0)
    assert schedule.next_due() == 2.0


def test_a_busy_key_does_not_hold_up_the_others() -> None:
    schedule: Schedule[str] = Schedule()
    order = []
    for key in "abc":
        schedule.wake(key, 0.0)
    for now in range(1, 7):
        key = schedule.take(float(now))
        assert key is not None
        order.append(key)
        schedule.wake("a", float(now))
        schedule.done(key, float(now), 0.0)
        schedule.wake(key, float(now))
    assert "".join(order) == "abcabc"


def test_what_was_asked_for_goes_before_what_time_alone_brings() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.wake("timed", 0.0, 1.0)
    schedule.wake("hastened", 0.0, 2.0)
    schedule.wake("asked", 3.0)
    schedule.wake("hastened", 3.0)
    assert [schedule.take(3.0) for _ in range(3)] == ["hastened", "asked", "timed"]


def test_what_is_asked_for_during_a_pass_has_its_head_start_after_it() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.wake("timed", 0.0, 1.0)
    schedule.wake("a", 0.0)
    assert schedule.take(0.0) == "a"
    schedule.wake("a", 2.0)
    schedule.done("a", 3.0, 60.0)
    assert schedule.take(3.0) == "a"
    schedule.done("a", 3.0, 0.5)
    assert [schedule.take(4.0) for _ in range(2)] == ["timed", "a"], "the head start is for one pass"


def test_events_without_end_hold_up_no_look_for_ever() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.wake("timed", 0.0, 1.0)
    schedule.wake("noisy", 1.0 + HEAD_START_SECONDS)
    schedule.wake("noisier", 1.1 + HEAD_START_SECONDS)
    assert [schedule.take(12.0) for _ in range(3)] == ["noisy", "timed", "noisier"]


def test_the_pause_after_failures_doubles_from_half_a_second_to_thirty() -> None:
    assert [backoff_seconds(count) for count in range(1, 9)] == [0.5, 0.5, 1, 2, 4, 8, 16, 30]
    assert backoff_seconds(1, 0.2) == 0.2
    assert backoff_seconds(10**9, 0.2) == BACKOFF_MAX_SECONDS


def test_no_wake_up_passes_the_pause_after_a_failure_and_success_ends_it() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.wake("a", 0.0)
    schedule.take(0.0)
    schedule.wake("a", 0.0)
    assert schedule.failed("a", 0.0) == 0.5
    schedule.wake("a", 0.1)
    assert schedule.take(0.4) is None
    assert schedule.take(0.5) == "a"
    schedule.done("a", 0.5, None)
    schedule.wake("a", 0.6)
    assert schedule.take(0.6) == "a"
    assert schedule.failed("a", 0.6, 0.2) == 0.2


def test_a_success_sets_the_pause_back_to_its_beginning() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.wake("a", 0.0)
    now = 0.0
    for _ in range(5):
        assert schedule.take(now) == "a"
        now += schedule.failed("a", now)
    assert schedule.take(now) == "a"
    schedule.done("a", now, 0.0)
    assert schedule.take(now) == "a"
    assert schedule.failed("a", now) == 0.5


class Walk(RuleBasedStateMachine):
    """What was asked for against what was handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule[str] = Schedule()
        self.now = 0.0
        self.busy: set[str] = set()
        self.wanted: dict[str, float] = {}
        self.asked: set[str] = set()
        self.floor: dict[str, float] = {}
        self.failures: dict[str, int] = {}

    def _want(self, key: str, due: float) -> None:
        due = max(due, self.floor.get(key, 0.0))
        self.wanted[key] = min(due, self.wanted.get(key, due))

    @rule(key=st.sampled_from(KEYS), delay=st.sampled_from([0.0, 0.1, 3.0, 40.0]))
    def wake(self, key: str, delay: float) -> None:
        self.schedule.wake(key, self.now, delay)
        self._want(key, self.now + delay)
        if delay == 0:
            self.asked.add(key)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 7.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        due = {key: when for key, when in self.wanted.items() if when <= self.now and key not in self.busy}
        taken = self.schedule.take(self.now)
        if taken is None:
            assert not due, "a key that is due was not handed out"
            return
        assert taken not in self.busy, "two passes over one key at once"
        ranks = {key: when + (0.0 if key in self.asked else HEAD_START_SECONDS) for key, when in due.items()}
        assert ranks[taken] == min(ranks.values()), "a key that should go first waits"
        assert self.now >= self.floor.get(taken, 0.0)
        del self.wanted[taken]
        self.asked.discard(taken)
        self.busy.add(taken)

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), again=st.sampled_from([None, 0.0, 5.0]))
    def done(self, data: st.DataObject, again: float | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.busy)))
        self.schedule.done(key, self.now, again)
        self.busy.discard(key)
        self.floor.pop(key, None)
        self.failures.pop(key, None)
        if again is not None:
            self._want(key, self.now + again)

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def failed(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.busy)))
        pause = self.schedule.failed(key, self.now)
        self.busy.discard(key)
        self.failures[key] = self.failures.get(key, 0) + 1
        assert pause == backoff_seconds(self.failures[key])
        self.floor[key] = self.now + pause
        if key in self.wanted:
            self.wanted[key] = max(self.wanted[key], self.floor[key])
        self._want(key, self.now + pause)

    @invariant()
    def nothing_is_lost_and_nothing_is_left_behind(self) -> None:
        waiting = [when for key, when in self.wanted.items() if key not in self.busy]
        assert self.schedule.next_due() == (min(waiting) if waiting else None)
        assert len(self.schedule) == len(self.busy | self.wanted.keys())
        assert self.schedule.depth(self.now) == sum(when <= self.now for when in waiting)


TestWalk = pytest.mark.filterwarnings("ignore")(Walk.TestCase)
