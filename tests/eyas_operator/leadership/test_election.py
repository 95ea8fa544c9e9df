"""The rules of the election: never two leaders, whatever the clocks say; and always one again."""

from dataclasses import dataclass, replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from eyas_contract.errors import Conflict
from eyas_operator.leadership.election import (
    LEASE_SECONDS,
    RENEW_SECONDS,
    RETRY_SECONDS,
    Claim,
    Lease,
    Sighting,
    Wait,
    claimed,
    decide,
    given_back,
    leads_until,
    sighted,
)
from support.lease_store import MemoryLeaseStore

HELD = Lease(holder="other", version="7", transitions=3, acquire_time="a", renew_time="r")


def test_no_lease_and_a_lease_without_a_holder_are_taken_at_once() -> None:
    assert decide(None, "me", 0.0) == Claim(over=None)
    free = replace(HELD, holder="")
    assert decide(Sighting(lease=free, seconds=0.0), "me", 0.0) == Claim(over=free)


def test_a_lease_that_names_this_pod_is_taken_at_once() -> None:
    mine = replace(HELD, holder="me")
    assert decide(Sighting(lease=mine, seconds=0.0), "me", 0.0) == Claim(over=mine)
    assert claimed(mine, "me", "now").transitions == 3
    assert claimed(mine, "me", "now").acquire_time == "a"


def test_a_holder_is_waited_for_from_our_first_sighting_and_not_from_its_own_times() -> None:
    ancient = replace(HELD, renew_time="1970-01-01T00:00:00Z")
    seen = sighted(None, ancient, 100.0)
    assert isinstance(decide(seen, "me", 100.0 + LEASE_SECONDS - 0.1), Wait)
    assert decide(seen, "me", 100.0 + LEASE_SECONDS) == Claim(over=ancient)


def test_every_renewal_begins_the_wait_anew_and_a_repeated_look_does_not() -> None:
    first = sighted(None, HELD, 0.0)
    assert sighted(first, HELD, 14.0) is first
    renewed = sighted(first, replace(HELD, version="8"), 14.0)
    assert isinstance(decide(renewed, "me", 16.0), Wait)


def test_a_longer_term_of_another_version_is_respected() -> None:
    seen = sighted(None, replace(HELD, lease_seconds=60.0), 0.0)
    assert decide(seen, "me", 59.0) == Wait(seconds=1.0)
    assert decide(sighted(None, replace(HELD, lease_seconds=1.0), 0.0), "me", 5.0) == Wait(seconds=RETRY_SECONDS)


def test_taking_over_counts_a_transition_and_giving_back_empties_the_name() -> None:
    taken = claimed(HELD, "me", "now")
    assert (taken.holder, taken.transitions, taken.acquire_time, taken.version) == ("me", 4, "now", "7")
    assert given_back(taken, "later").holder == ""
    assert claimed(None, "me", "now").version == ""


@dataclass
class Candidate:
    """A process with a clock of its own."""

    name: str
    rate: float
    offset: float
    sighting: Sighting | None = None
    decision: Claim | Wait | None = None
    decided: float = 0.0
    until: float = float("-inf")

    def now(self, true: float) -> float:
        return self.offset + true * self.rate


class Election(RuleBasedStateMachine):
    """Candidates look and write in any order, with pauses and lost answers between."""

    @initialize(
        clocks=st.lists(st.tuples(st.floats(0.85, 1.15), st.floats(-1e6, 1e6)), min_size=2, max_size=4),
    )
    def begin(self, clocks: list[tuple[float, float]]) -> None:
        self.true = 0.0
        self.store = MemoryLeaseStore()
        self.all = [Candidate(f"pod-{index}", rate, offset) for index, (rate, offset) in enumerate(clocks)]

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.0, 5.0, 9.0, 12.0, 15.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.true += seconds

    @rule(index=st.integers(0, 3))
    def look(self, index: int) -> None:
        one = self.all[index % len(self.all)]
        lease, now = self.store.lease, one.now(self.true)
        one.sighting = sighted(one.sighting, lease, now) if lease is not None else None
        one.decision = decide(one.sighting, one.name, now)

    @rule(index=st.integers(0, 3), answered=st.booleans(), travel=st.sampled_from([0.0, 1.0, 3.0, 20.0]))
    def write(self, index: int, *, answered: bool, travel: float) -> None:
        one = self.all[index % len(self.all)]
        if not isinstance(one.decision, Claim):
            return
        sent = one.now(self.true)
        self.true += travel
        try:
            self.store.put(claimed(one.decision.over, one.name, "now"))
        except Conflict:
            return
        finally:
            one.decision = None
        if answered:
            one.until = leads_until(sent)

    @rule(index=st.integers(0, 3))
    def give_back(self, index: int) -> None:
        one = self.all[index % len(self.all)]
        lease = self.store.lease
        if lease is not None and lease.holder == one.name and one.now(self.true) < one.until:
            one.until = float("-inf")
            self.store.put(given_back(lease, "now"))

    @invariant()
    def never_two_leaders(self) -> None:
        if hasattr(self, "all"):
            leaders = [one.name for one in self.all if one.now(self.true) < one.until]
            assert len(leaders) <= 1, leaders


TestElection = Election.TestCase


def test_a_leader_gives_up_well_before_anybody_may_take_over() -> None:
    assert RENEW_SECONDS * 1.2 <= LEASE_SECONDS * 0.8 + 1e-9
