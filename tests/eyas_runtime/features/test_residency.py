"""Bookkeeping of one process: caps, leases and pending deletions under any order of calls."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eyas_contract.errors import NotReadable, StoreFull
from eyas_runtime.features.residency import Residency

KEYS = st.sampled_from([f"k{n}" for n in range(4)])
CAP = 100


class ResidencyMachine(RuleBasedStateMachine):
    """Against a model of plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Residency(max_bytes=CAP)
        self.bytes: dict[str, int] = {}
        self.leases: dict[str, str] = {}
        self.freeing: set[str] = set()

    @rule(key=KEYS, nbytes=st.integers(1, 60))
    def reserve(self, key: str, nbytes: int) -> None:
        known = key in self.bytes or key in self.freeing or key in self.leases.values()
        if known:
            assert self.real.reserve(key, nbytes, 0.0) is False
        elif sum(self.bytes.values()) + nbytes > CAP:
            with pytest.raises(StoreFull):
                self.real.reserve(key, nbytes, 0.0)
        else:
            assert self.real.reserve(key, nbytes, 0.0) is True
            self.bytes[key] = nbytes

    @rule(key=KEYS)
    def lease(self, key: str) -> None:
        if key in self.freeing:
            with pytest.raises(NotReadable):
                self.real.lease(key)
        else:
            self.leases[self.real.lease(key)] = key

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 1000))
    def end_lease(self, which: int) -> None:
        # By age, not by name: tokens are random and a replay draws others.
        token = list(self.leases)[which % len(self.leases)]
        key = self.leases.pop(token)
        last = key not in self.leases.values()
        assert self.real.end_lease(token) == (key if last else None)
        assert self.real.end_lease(token) is None

    @rule(key=KEYS, spare=st.booleans())
    def begin_free(self, key: str, spare: bool) -> None:
        leased = key in self.leases.values()
        assert self.real.begin_free(key, spare_leased=spare) is not (spare and leased)
        if not (spare and leased):
            self.freeing.add(key)

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        assert self.real.forget(key) == self.bytes.pop(key, 0)
        self.freeing.discard(key)
        self.leases = {token: leased for token, leased in self.leases.items() if leased != key}

    @rule(key=KEYS)
    def hand_over(self, key: str) -> None:
        self.real.hand_over(key)
        self.bytes.pop(key, None)

    @invariant()
    def totals_agree(self) -> None:
        totals = self.real.totals(0.0)
        assert totals.resident_bytes == sum(self.bytes.values()) <= CAP
        assert totals.active_leases == len(self.leases)
        assert set(self.real.pending()) == self.freeing
        assert totals.resident_samples == len(self.bytes)


TestResidency = ResidencyMachine.TestCase
TestResidency.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_nothing_stays_behind_of_samples_that_went_through() -> None:
    residency = Residency(max_bytes=None)
    for number in range(1000):
        key = f"k{number}"
        residency.reserve(key, 1, 0.0)
        token = residency.lease(key)
        assert residency.end_lease(token) == key
        assert residency.begin_free(key, spare_leased=True)
        residency.forget(key)
    for number in range(1000):
        residency.reserve(f"handed-over{number}", 1, 0.0)
        residency.hand_over(f"handed-over{number}")
    for number in range(1000):
        token = residency.lease(f"read-only{number}")
        residency.end_lease(token)
    assert residency._entries == {}
    assert residency._keys_by_lease == {}


def test_concurrent_reservations_never_pass_the_cap_together() -> None:
    residency = Residency(max_bytes=10)
    barrier = threading.Barrier(32)

    def reserve(number: int) -> bool:
        barrier.wait()
        try:
            return residency.reserve(f"k{number}", 1, 0.0)
        except StoreFull:
            return False

    with ThreadPoolExecutor(32) as threads:
        assert sum(threads.map(reserve, range(32))) == 10
