"""Probes and metrics over HTTP, and the list of everything once a minute."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from eyas_contract.errors import Transient
from eyas_operator.handlers.hearing import Hearing
from eyas_operator.process.endpoints import serve
from eyas_operator.process.health import Vitals
from eyas_operator.process.metrics import ProcessMetrics
from eyas_operator.process.resync import Resync
from eyas_operator.queue.workers import JobKey

FINE = Vitals(
    leading=True, synced=True, lease_try_age=0, lease_look_age=0, oldest_pass=0, relist_age=0, relist_seconds=60,
    stale_relists=0,
)  # fmt: skip


def test_probes_say_why_and_metrics_say_how_much() -> None:
    state = {"vitals": FINE}

    async def script() -> None:
        registry = CollectorRegistry()
        metrics = ProcessMetrics(registry, "1.2.3", lambda: 7.0)
        metrics.heard("Pod")
        metrics.failed("conflict")
        metrics.follow("leader", "1 while this process leads.", lambda: 1.0)
        ends = await serve(registry, lambda: state["vitals"], address="127.0.0.1", metrics_port=0, probes_port=0)
        base = f"http://127.0.0.1:{ends.probes_port}"
        async with aiohttp.ClientSession() as session:
            for path in ("healthz", "readyz"):
                async with session.get(f"{base}/{path}") as answer:
                    assert answer.status == 200
            state["vitals"] = replace(FINE, oldest_pass=1000)
            async with session.get(f"{base}/healthz") as answer:
                assert answer.status == 503
                assert "a pass has been under way" in await answer.text()
            async with session.get(f"{base}/metrics") as answer:
                assert answer.status == 404
            async with session.get(f"http://127.0.0.1:{ends.metrics_port}/metrics") as answer:
                text = await answer.text()
        for line in (
            'eyas_operator_build_info{version="1.2.3"} 1.0',
            'eyas_operator_watch_last_event_timestamp_seconds{kind="Pod"} 7.0',
            'eyas_operator_reconcile_errors_total{reason="conflict"} 1.0',
            "eyas_operator_leader 1.0",
        ):
            assert line in text
        with pytest.raises(Transient, match="cannot listen"):
            await serve(registry, lambda: FINE, address="127.0.0.1", metrics_port=ends.probes_port, probes_port=0)
        await ends.close()

    asyncio.run(script())


class ScriptedLists:
    """Lists that fail when told to."""

    def __init__(self) -> None:
        self.failures = 0
        self.shown: dict[str, int] = {}
        self.asked: list[str] = []

    async def relist(self, namespace: str) -> Collection[tuple[str, str]]:
        self.asked.append(namespace)
        if self.failures:
            self.failures -= 1
            raise Transient("away")
        return [(namespace, "one"), (namespace, "two")]

    def versions(self) -> dict[str, int]:
        return self.shown


def test_every_list_wakes_every_job_and_tells_what_the_streams_missed() -> None:
    lists, woken, hearing = ScriptedLists(), [], Hearing()
    resync = Resync(
        lists, ("a", "b"), lambda key, _seconds: woken.append(key), hearing, seconds=60.0, clock=lambda: 5.0
    )
    lists.shown = {"x": 3}
    assert not resync.synced
    asyncio.run(resync.first())
    assert resync.synced
    assert woken == [JobKey(*key) for key in (("a", "one"), ("a", "two"), ("b", "one"), ("b", "two"))]
    asyncio.run(resync.first())
    assert (resync.missed, resync.stale) == (1, 1)
    hearing.heard("x", 3)
    asyncio.run(resync.first())
    assert (resync.missed, resync.stale) == (1, 0)


def test_a_list_that_fails_is_made_again_and_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = ScriptedLists()
    lists.failures = 2
    monkeypatch.setattr("eyas_operator.process.resync.RETRY_SECONDS", 0.0)
    resync = Resync(lists, ("a",), lambda _key, _seconds: None, Hearing(), seconds=60.0, clock=lambda: 5.0)
    asyncio.run(resync.first())
    assert lists.asked == ["a", "a", "a"]
    assert resync.synced


def test_a_replica_that_waited_for_long_is_not_late_when_it_begins_to_lead() -> None:
    now = 0.0
    lists = ScriptedLists()
    resync = Resync(lists, ("a",), lambda _key, _seconds: None, Hearing(), seconds=60.0, clock=lambda: now)
    now = 1e6
    ages: list[float] = []

    async def relist(namespace: str) -> Collection[tuple[str, str]]:
        ages.append(now - resync.last)
        return []

    lists.relist = relist  # type: ignore[method-assign]
    asyncio.run(resync.first())
    assert ages == [0.0]
