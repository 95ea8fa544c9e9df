"""Lists of everything: what one namespace refuses holds up no other one."""

import asyncio
from collections.abc import Collection

import pytest

from eyas_contract.errors import Transient
from eyas_operator.errors import Refused
from eyas_operator.handlers.hearing import Hearing
from eyas_operator.process.resync import WAKE_SECONDS, Resync
from eyas_operator.queue.workers import JobKey


class Lists:
    """The same jobs in each namespace; some cannot be listed."""

    def __init__(self) -> None:
        self.closed: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.names: tuple[str, ...] = ("demo",)

    async def relist(self, namespace: str) -> Collection[tuple[str, str]]:
        self.asked.append(namespace)
        if namespace in self.closed:
            raise self.closed[namespace]
        return [(namespace, name) for name in self.names]

    def versions(self) -> dict[str, int]:
        return {}


def made(lists: Lists, woken: list[JobKey], pauses: list[float] | None = None) -> Resync:
    def wake(key: JobKey, seconds: float) -> None:
        woken.append(key)
        if pauses is not None:
            pauses.append(seconds)

    return Resync(lists, ("first", "second"), wake, Hearing(), seconds=0.0, clock=lambda: 0.0)


def test_jobs_that_a_list_found_are_not_all_looked_at_together() -> None:
    lists, woken, pauses = Lists(), list[JobKey](), list[float]()
    lists.names = tuple(f"job-{number}" for number in range(500))
    asyncio.run(made(lists, woken, pauses).first())
    found = dict(zip(woken, pauses, strict=True))
    of_first = sorted(seconds for key, seconds in found.items() if key.namespace == "first")
    assert of_first == pytest.approx([turn * WAKE_SECONDS for turn in range(500)])


def test_a_namespace_that_refuses_us_holds_up_no_other_one() -> None:
    lists, woken = Lists(), list[JobKey]()
    lists.closed["first"] = Refused("forbidden")
    resync = made(lists, woken)
    asyncio.run(resync.first())
    assert resync.synced
    assert resync.served == {"second"}
    assert woken == [JobKey("second", "demo")]


def test_a_namespace_that_opens_ends_the_lists_because_it_needs_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyas_operator.process.resync.RETRY_SECONDS", 0.0)
    lists, woken = Lists(), list[JobKey]()
    lists.closed["first"] = Refused("forbidden")
    resync = made(lists, woken)

    async def life() -> str:
        await resync.first()
        running = asyncio.create_task(resync.run())
        rounds = len(lists.asked)
        while len(lists.asked) < rounds + 6:
            assert not running.done(), "nothing new is open"
            await asyncio.sleep(0)
        lists.closed.clear()
        return await asyncio.wait_for(running, 30)

    assert "first" in asyncio.run(life())
    assert JobKey("first", "demo") in woken


def test_nothing_is_synced_before_anything_could_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyas_operator.process.resync.RETRY_SECONDS", 0.0)
    lists = Lists()
    lists.closed = {"first": Refused("forbidden"), "second": Refused("forbidden")}
    resync = made(lists, [])

    async def life() -> None:
        first = asyncio.create_task(resync.first())
        while len(lists.asked) < 6:
            assert not first.done()
            await asyncio.sleep(0)
        assert not resync.synced
        lists.closed = {"second": Transient("away")}
        while len(lists.asked) < 12:
            assert not first.done(), "an API server that is away refuses nothing: all of it is listed again"
            await asyncio.sleep(0)
        lists.closed.clear()
        await asyncio.wait_for(first, 30)

    asyncio.run(life())
    assert resync.served == {"first", "second"}
