"""Claims about the terms of leases, in virtual time (hazard 22)."""

import pytest

from eyas_contract.wire import Holder
from eyas_runtime.metadata.port import LiveLease
from eyas_runtime.metadata.service.leases import TICK_GAP_SECONDS, LeaseTerms, capture_deadline

HOLDER = Holder(index=0, ordinal=1, restart=0)
TICK = 0.25


def lease(lease_id: str, *, group: int = 0, term: float = 30.0, deadline: float = 600.0) -> LiveLease:
    return LiveLease(lease_id=lease_id, holder=HOLDER, group=group, term_seconds=term, deadline_seconds=deadline)


def run_ticks(terms: LeaseTerms, *, start: float, end: float) -> list[str]:
    """Tick as the service does, from `start` to `end`; ids that ended."""
    ended, now = [], start
    while now <= end:
        ended += [each.lease_id for each in terms.tick(now=now)]
        now += TICK
    return ended


def test_a_lease_that_is_not_renewed_ends_after_its_term_and_not_before() -> None:
    terms = LeaseTerms()
    terms.granted(lease("a"), now=0.0)
    assert run_ticks(terms, start=0.0, end=29.75) == []
    assert run_ticks(terms, start=30.0, end=30.0) == ["a"]
    assert len(terms) == 0


def test_a_renewal_extends_exactly_the_leases_that_it_names() -> None:
    terms = LeaseTerms()
    terms.granted(lease("named"), now=0.0)
    terms.granted(lease("forgotten", group=1), now=0.0)
    run_ticks(terms, start=0.0, end=20.0)
    assert terms.renew(HOLDER, ("named", "unknown"), now=20.0) == ("named",)
    assert run_ticks(terms, start=20.25, end=49.75) == ["forgotten"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Holder(index=1, ordinal=1, restart=0), id="another producer"),
        pytest.param(Holder(index=0, ordinal=0, restart=9), id="an older ordinal"),
        pytest.param(Holder(index=0, ordinal=1, restart=1), id="another process of the pod"),
    ],
)
def test_nobody_renews_or_returns_the_lease_of_another_holder(other: Holder) -> None:
    terms = LeaseTerms()
    terms.granted(lease("a"), now=0.0)
    assert terms.renew(other, ("a",), now=10.0) == ()
    assert terms.held_by(other, ("a",)) == ()
    assert terms.held_by(HOLDER, ("a", "b")) == ("a",)


def test_no_lease_is_renewed_past_its_capture_deadline() -> None:
    terms = LeaseTerms()
    terms.granted(lease("a", deadline=45.0), now=0.0)
    ended: list[str] = []
    for step in range(0, 50, 1):
        terms.renew(HOLDER, ("a",), now=float(step))
        expired = terms.tick(now=float(step))
        ended += [each.lease_id for each in expired]
        if expired:
            assert step == 45
            assert expired[0].over_deadline
            break
    assert ended == ["a"]


def test_silence_is_told_apart_from_a_capture_that_takes_too_long() -> None:
    terms = LeaseTerms()
    terms.granted(lease("silent", deadline=600.0), now=0.0)
    terms.tick(now=0.0)
    run_ticks(terms, start=0.25, end=29.75)
    (expired,) = terms.tick(now=30.0)
    assert not expired.over_deadline


def test_after_a_gap_in_its_own_ticks_every_lease_gets_one_full_term() -> None:
    terms = LeaseTerms()
    terms.granted(lease("a"), now=0.0)
    run_ticks(terms, start=0.0, end=10.0)
    resumed = 10.0 + 3600.0
    assert terms.tick(now=resumed) == ()
    assert run_ticks(terms, start=resumed + TICK, end=resumed + 29.75) == []
    assert run_ticks(terms, start=resumed + 30.0, end=resumed + 30.0) == ["a"]


def test_a_gap_does_not_use_up_the_capture_deadline() -> None:
    terms = LeaseTerms()
    terms.granted(lease("a", deadline=100.0), now=0.0)
    run_ticks(terms, start=0.0, end=1.0)
    terms.tick(now=1000.0)
    now = 1000.0
    while now < 1050.0:
        assert terms.renew(HOLDER, ("a",), now=now) == ("a",)
        assert terms.tick(now=now) == ()
        now += 1.0


def test_ticks_that_are_merely_late_are_no_gap() -> None:
    terms = LeaseTerms()
    terms.granted(lease("a", term=2.0), now=0.0)
    terms.tick(now=0.0)
    (expired,) = terms.tick(now=TICK_GAP_SECONDS)
    assert expired.lease_id == "a"


def test_leases_found_at_a_start_get_one_full_term() -> None:
    terms = LeaseTerms()
    terms.adopt([lease("a"), lease("b", group=1)], now=500.0)
    assert run_ticks(terms, start=500.0, end=529.75) == []
    assert run_ticks(terms, start=530.0, end=530.0) == ["a", "b"]


def test_a_repeated_grant_does_not_lengthen_a_term() -> None:
    terms = LeaseTerms()
    terms.granted(lease("a"), now=0.0)
    run_ticks(terms, start=0.0, end=20.0)
    terms.granted(lease("a"), now=20.0)
    assert run_ticks(terms, start=20.25, end=30.0) == ["a"]


def test_a_renewal_that_arrives_before_the_tick_that_would_end_the_lease_saves_it() -> None:
    terms = LeaseTerms()
    terms.granted(lease("a"), now=0.0)
    terms.tick(now=29.9)
    assert terms.renew(HOLDER, ("a",), now=30.1) == ("a",)
    assert terms.tick(now=30.2) == ()


def test_the_capture_deadline_doubles_with_each_overrun_and_stops_somewhere() -> None:
    assert [capture_deadline(600.0, overruns) for overruns in (0, 1, 2)] == [600.0, 1200.0, 2400.0]
    assert capture_deadline(600.0, 10) == capture_deadline(600.0, 10_000)
