"""One process's part in the election: winning, renewing, losing and giving back, on a clock that the test moves."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from eyas_contract.errors import Fenced
from eyas_operator.cluster import Cluster
from eyas_operator.leadership.campaign import Campaign
from eyas_operator.leadership.election import LEASE_SECONDS, RENEW_SECONDS, Lease
from eyas_operator.leadership.guard import LedCluster
from support.lease_store import MemoryLeaseStore
from support.manual_clock import ManualClock
from support.model_cluster import ModelCluster
from support.operator_world import JOB


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> list[float]:
    """Sleeping moves the clock instead of taking time; the pauses are kept."""
    pauses: list[float] = []
    yield_to_others = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.advance(seconds)
        assert len(pauses) < 1000, "waits for ever"
        await yield_to_others(0)

    monkeypatch.setattr("eyas_operator.leadership.campaign.asyncio.sleep", sleep)
    return pauses


def a_campaign(store: MemoryLeaseStore, clock: ManualClock, name: str) -> Campaign:
    return Campaign(store, name, clock=clock.monotonic, wall=clock.wall)


def test_the_first_candidate_leads_at_once(clock: ManualClock, quick: list[float]) -> None:
    store = MemoryLeaseStore()
    campaign = a_campaign(store, clock, "a")
    asyncio.run(campaign.win())
    assert campaign.leading
    assert not quick
    assert store.lease is not None
    assert store.lease.holder == "a"


def test_a_dead_leader_is_replaced_after_its_term(clock: ManualClock, quick: list[float]) -> None:
    store = MemoryLeaseStore()
    asyncio.run(a_campaign(store, clock, "dead").win())
    began = clock.monotonic()
    asyncio.run(a_campaign(store, clock, "b").win())
    assert LEASE_SECONDS <= clock.monotonic() - began <= LEASE_SECONDS + 3


def test_a_lease_that_is_given_back_is_taken_at_the_next_look(clock: ManualClock, quick: list[float]) -> None:
    store = MemoryLeaseStore()
    first, second = a_campaign(store, clock, "a"), a_campaign(store, clock, "b")

    async def script() -> None:
        await first.win()
        await second._try()
        await first.give_back()
        assert not first.leading
        await second.win()

    asyncio.run(script())
    assert second.leading
    assert not quick


def test_the_same_pod_goes_on_at_once_after_its_container_was_restarted(clock: ManualClock, quick: list[float]) -> None:
    store = MemoryLeaseStore()
    asyncio.run(a_campaign(store, clock, "pod").win())
    successor = a_campaign(store, clock, "pod")
    asyncio.run(successor.win())
    assert successor.leading
    assert not quick


def hold(campaign: Campaign, clock: ManualClock, trouble: Callable[[], None], *, after: float) -> float:
    """Seconds for which it was held once the trouble began."""

    async def script() -> float:
        await campaign.win()
        began = clock.monotonic()
        holding = asyncio.create_task(campaign.hold())
        while clock.monotonic() - began < after:
            await asyncio.sleep(0)
            assert not holding.done(), "lost without a reason"
        trouble()
        since = clock.monotonic()
        await holding
        return clock.monotonic() - since

    return asyncio.run(script())


def test_a_leader_that_reaches_nobody_stops_by_its_own_clock(clock: ManualClock, quick: list[float]) -> None:
    store = MemoryLeaseStore()
    campaign = a_campaign(store, clock, "a")
    lasted = hold(campaign, clock, lambda: setattr(store, "away", True), after=60.0)
    assert lasted <= RENEW_SECONDS
    assert not campaign.leading


def test_a_leader_that_sees_another_name_stops_at_once(clock: ManualClock, quick: list[float]) -> None:
    store = MemoryLeaseStore()
    campaign = a_campaign(store, clock, "a")

    def stolen() -> None:
        assert store.lease is not None
        store.put(replace(store.lease, holder="b"))

    assert hold(campaign, clock, stolen, after=10.0) <= 2.0


def test_a_renewal_whose_answer_was_lost_does_not_lose_the_lease(clock: ManualClock, quick: list[float]) -> None:
    store = MemoryLeaseStore()
    campaign = a_campaign(store, clock, "a")

    async def script() -> None:
        await campaign.win()
        store.deaf_writes = 1
        for _ in range(2):
            clock.advance(2.0)
            await campaign._try()
        clock.advance(RENEW_SECONDS - 1)
        assert campaign.leading

    asyncio.run(script())


def test_who_was_paused_does_not_lead_before_it_looks_at_the_clock(clock: ManualClock, quick: list[float]) -> None:
    campaign = a_campaign(MemoryLeaseStore(), clock, "a")
    asyncio.run(campaign.win())
    clock.advance(RENEW_SECONDS)
    assert not campaign.leading


def test_a_leaders_time_counts_from_before_its_renewal_was_sent(clock: ManualClock, quick: list[float]) -> None:
    class Slow(MemoryLeaseStore):
        async def write(self, lease: Lease) -> Lease:
            clock.advance(3.0)
            return await super().write(lease)

    campaign = a_campaign(Slow(), clock, "a")
    asyncio.run(campaign.win())
    assert campaign.leading
    clock.advance(RENEW_SECONDS - 3.0)
    assert not campaign.leading


def test_a_lost_lease_is_not_given_back_by_its_former_holder(clock: ManualClock, quick: list[float]) -> None:
    store = MemoryLeaseStore()
    campaign = a_campaign(store, clock, "a")
    asyncio.run(campaign.win())
    clock.advance(LEASE_SECONDS)
    asyncio.run(campaign.give_back())
    assert store.lease is not None
    assert store.lease.holder == "a"


def test_nothing_is_written_by_a_cluster_that_is_not_led() -> None:
    model = ModelCluster()
    led: Cluster = LedCluster(model, lambda: False)

    async def script() -> None:
        assert await led.read_job(JOB.namespace, JOB.name) is not None
        with pytest.raises(Fenced):
            await led.delete_job(JOB)
        with pytest.raises(Fenced):
            await led.post_events(JOB, ())

    asyncio.run(script())
    assert model.writes == 0
