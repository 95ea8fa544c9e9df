"""The three ways in which controllers break (Sieve), and a fourth, on a real API server.

The operator dies between any two writes; it sees the past after a restart; it never sees one event; two of it work at
once. In each the job comes to the state of the undisturbed run, and no pod is ever made twice under one name.
"""

import asyncio
from pathlib import Path
from typing import Final

import pytest

from eyas_contract.states import Phase
from eyas_operator.backends.kubernetes.cache import ChildrenCache, JobsCache
from eyas_operator.backends.kubernetes.client import KubeClient
from eyas_operator.backends.kubernetes.connect import connect
from eyas_operator.backends.kubernetes.listing import Listing, list_children
from eyas_operator.world import JobRecord
from support.kube_apiserver import KubeApiServer
from support.kube_sieve import Disturbance, Streams, Theatre
from support.operator_world import a_report

pytestmark = pytest.mark.apiserver


def _complete(theatre: Theatre) -> None:
    theatre.reports.report = a_report(
        job_uid=theatre.job.job_uid, phase=Phase.COMPLETE, acked_step=100, durable_step=100
    )


def _lose_claim(theatre: Theatre) -> None:
    path = theatre.kubelet.path("persistentvolumeclaims", f"{theatre.job.stem}-metadata-e1")
    theatre.server.must("DELETE", path)
    theatre.kubelet.work()


DISTURBANCES: Final[dict[str, Disturbance]] = {
    "producer dies": lambda theatre: theatre.kubelet.end("producer-0-o1", 1),
    "producer vanishes": lambda theatre: theatre.kubelet.kill("producer-1-o1"),
    "gang dies": lambda theatre: theatre.kubelet.end("consumer-1-a1", 139),
    "metadata claim is lost": _lose_claim,
    "resize": lambda theatre: theatre.edit(producers={"replicas": 1}, consumers={"replicas": 3, "processesPerPod": 1}),
    "suspend": lambda theatre: theatre.edit(suspend=True),
    "complete": _complete,
    "configuration error": lambda theatre: theatre.kubelet.end("producer-0-o1", 78),
}


def nothing(theatre: Theatre) -> None:
    """The first start itself is what is disturbed."""


async def undisturbed(theatre: Theatre, disturb: Disturbance) -> int:
    """Start, disturb, come to rest; the number of writes after the disturbance."""
    if disturb is not nothing:
        await theatre.rest()
    started = theatre.writes
    disturb(theatre)
    await theatre.rest()
    return theatre.writes - started


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("what", ["first start", *DISTURBANCES])
def test_operator_that_dies_at_any_write_leaves_nothing_half_done(
    jobs: KubeApiServer, tmp_path: Path, what: str, after: bool
) -> None:
    disturb = DISTURBANCES.get(what, nothing)

    async def inside() -> None:
        clean = Theatre(jobs, tmp_path)
        writes = await undisturbed(clean, disturb)
        assert writes > 1
        for point in range(writes):
            theatre = Theatre(jobs, tmp_path)
            if disturb is not nothing:
                await theatre.rest()
            disturb(theatre)
            theatre.die_at, theatre.die_after = theatre.writes + point, after
            assert await theatre.rest() == 1, f"write {point} of {writes} was not made"
            assert theatre.state() == clean.state(), f"died at write {point} of {writes}"
            theatre.check_books()

    asyncio.run(inside())


@pytest.mark.parametrize("what", ["gang dies", "producer dies", "metadata claim is lost", "complete"])
def test_operator_that_starts_with_the_past_in_its_caches_does_nothing_by_it(
    jobs: KubeApiServer, tmp_path: Path, what: str
) -> None:
    async def inside() -> None:
        theatre = Theatre(jobs, tmp_path)
        await theatre.rest()
        DISTURBANCES[what](theatre)
        past: list[tuple[JobRecord, Listing]] = []
        client = KubeClient(await connect(jobs.kubeconfig()))
        try:
            async with theatre.operator() as process:
                for _ in range(8):
                    record = await process.cluster.read_job(theatre.job.namespace, theatre.job.name)
                    assert record is not None
                    past.append((record, await list_children(client, theatre.job.namespace)))
                    await process.reconciler.reconcile(theatre.job.namespace, theatre.job.name)
                    theatre.kubelet.work()
                    theatre.clock.now += 2
                await process.rest(theatre.job, theatre.kubelet, theatre.clock)
        finally:
            await client.close()
        end, writes = theatre.state(), theatre.writes
        for record, listing in past:
            async with theatre.operator() as process:
                process.cluster.jobs, process.cluster.children = JobsCache(), ChildrenCache()
                process.cluster.jobs.put(record)
                process.cluster.children.replace(theatre.job.namespace, listing)
                for _ in range(3):
                    await process.reconciler.reconcile(theatre.job.namespace, theatre.job.name)
            assert theatre.writes == writes, f"acted on the world of version {record.resource_version}"
        assert theatre.state() == end
        theatre.check_books()

    asyncio.run(inside())


@pytest.mark.parametrize("what", ["gang dies", "producer vanishes", "metadata claim is lost", "suspend"])
def test_event_that_never_arrives_only_delays(jobs: KubeApiServer, tmp_path: Path, what: str) -> None:
    async def one(drop: int) -> tuple[Theatre, int]:
        """A run in which event number `drop` is lost; how many there were."""
        theatre = Theatre(jobs, tmp_path)
        await theatre.rest()
        async with theatre.operator() as process:
            streams, seen = Streams(theatre), 0
            DISTURBANCES[what](theatre)
            for _ in range(10):
                for kind, raw in streams.events():
                    if seen != drop:
                        cache = process.cluster.jobs if raw["kind"] == "DisaggTrainingJob" else process.cluster.children
                        cache.observe(kind, raw)  # type: ignore[arg-type]
                    seen += 1
                await process.reconciler.reconcile(theatre.job.namespace, theatre.job.name)
                theatre.kubelet.work()
                theatre.clock.now += 2
            await process.cluster.relist(theatre.job.namespace)
            await process.rest(theatre.job, theatre.kubelet, theatre.clock)
        return theatre, seen

    async def inside() -> None:
        clean, events = await one(-1)
        assert events > 3
        for drop in range(events):
            theatre, _ = await one(drop)
            assert theatre.state() == clean.state(), f"without event {drop} of {events}"
            theatre.check_books()

    asyncio.run(inside())


@pytest.mark.parametrize("what", ["first start", *DISTURBANCES])
def test_two_operators_at_once_do_what_one_does(jobs: KubeApiServer, tmp_path: Path, what: str) -> None:
    disturb = DISTURBANCES.get(what, nothing)

    async def inside() -> None:
        clean, theatre = Theatre(jobs, tmp_path), Theatre(jobs, tmp_path)
        await undisturbed(clean, disturb)
        if disturb is not nothing:
            await theatre.rest()
        async with theatre.operator() as one, theatre.operator() as other:
            disturb(theatre)
            for _ in range(15):
                await asyncio.gather(
                    *(it.reconciler.reconcile(theatre.job.namespace, theatre.job.name) for it in (one, other))
                )
                theatre.kubelet.work()
                theatre.clock.now += 2
        await theatre.rest()
        assert theatre.state() == clean.state()
        theatre.check_books()

    asyncio.run(inside())
