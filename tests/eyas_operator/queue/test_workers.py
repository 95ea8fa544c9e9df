"""Workers: passes of different jobs at once, of one job never; errors repeat, fencing ends everything."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from eyas_contract.errors import Fenced
from eyas_operator.queue.workers import JobKey, Verdict, Workers
from support.until import until

JOB_A, JOB_B = JobKey("ns", "a"), JobKey("ns", "b")


async def with_workers(
    make_pass: Callable[[JobKey], Awaitable[Verdict]], script: Callable[[Workers], Awaitable[None]], count: int = 4
) -> None:
    workers = Workers(make_pass, count=count, clock=asyncio.get_running_loop().time)
    running = asyncio.create_task(workers.run())
    try:
        async with asyncio.timeout(30):
            await script(workers)
    finally:
        await workers.stop()
        await running


def test_two_jobs_are_worked_on_at_once_and_one_job_never_twice() -> None:
    under_way: Counter[JobKey] = Counter()
    seen: Counter[JobKey] = Counter()
    both = asyncio.Event()

    async def make_pass(key: JobKey) -> Verdict:
        under_way[key] += 1
        seen[key] += 1
        assert under_way[key] == 1, "two passes over one job"
        if len(+under_way) == 2:
            both.set()
        await both.wait()
        await asyncio.sleep(0)
        under_way[key] -= 1
        return Verdict(wake_seconds=None)

    async def script(workers: Workers) -> None:
        for _ in range(5):
            workers.wake(JOB_A)
            workers.wake(JOB_B)
            await asyncio.sleep(0)
        await both.wait()
        await until(lambda: min(seen[JOB_A], seen[JOB_B]) >= 2, "a second pass over both")

    asyncio.run(with_workers(make_pass, script))


def test_no_more_passes_than_workers_are_under_way() -> None:
    now, peak, made = 0, 0, 0

    async def make_pass(key: JobKey) -> Verdict:
        nonlocal now, peak, made
        now, made = now + 1, made + 1
        peak = max(peak, now)
        await asyncio.sleep(0.001)
        now -= 1
        return Verdict(wake_seconds=None)

    async def script(workers: Workers) -> None:
        for index in range(40):
            workers.wake(JobKey("ns", str(index)))
        await until(lambda: made == 40 and not now, "forty passes")

    asyncio.run(with_workers(make_pass, script, count=3))
    assert peak == 3


def test_a_pass_that_raises_is_repeated_and_stops_no_other_job() -> None:
    tries: Counter[JobKey] = Counter()

    async def make_pass(key: JobKey) -> Verdict:
        tries[key] += 1
        if key == JOB_A and tries[key] < 2:
            raise ValueError("poison")
        return Verdict(wake_seconds=None)

    async def script(workers: Workers) -> None:
        workers.wake(JOB_A)
        workers.wake(JOB_B)
        await until(lambda: tries[JOB_A] >= 2 and tries[JOB_B] >= 1, "a repeated pass")

    asyncio.run(with_workers(make_pass, script))


def test_wake_seconds_of_a_pass_bring_the_next_one_without_an_event() -> None:
    made = 0

    async def make_pass(key: JobKey) -> Verdict:
        nonlocal made
        made += 1
        return Verdict(wake_seconds=0.001 if made < 3 else None)

    async def script(workers: Workers) -> None:
        workers.wake(JOB_A, 0.001)
        await until(lambda: made == 3, "three passes")

    asyncio.run(with_workers(make_pass, script))
    assert made == 3


def test_who_is_fenced_ends_all_passes() -> None:
    async def make_pass(key: JobKey) -> Verdict:
        if key == JOB_B:
            raise Fenced("another leads")
        await asyncio.Event().wait()
        return Verdict(wake_seconds=None)

    async def script() -> None:
        workers = Workers(make_pass, count=2, clock=asyncio.get_running_loop().time)
        workers.wake(JOB_A)
        workers.wake(JOB_B)
        async with asyncio.timeout(30):
            await workers.run()

    with pytest.raises(Fenced):
        asyncio.run(script())


def test_stopping_waits_for_the_pass_under_way_and_begins_no_other() -> None:
    begun: list[JobKey] = []
    ended: list[JobKey] = []
    go = {key: asyncio.Event() for key in (JOB_A, JOB_B)}

    async def make_pass(key: JobKey) -> Verdict:
        begun.append(key)
        await go[key].wait()
        ended.append(key)
        return Verdict(wake_seconds=0.0)

    async def script() -> bool:
        workers = Workers(make_pass, count=2, clock=asyncio.get_running_loop().time)
        running = asyncio.create_task(workers.run())
        for key in (JOB_A, JOB_B, JobKey("ns", "late")):
            workers.wake(key)
        await until(lambda: len(begun) == 2, "two passes")
        stopping = asyncio.create_task(workers.stop(30.0))
        go[JOB_A].set()
        await until(lambda: ended == [JOB_A], "the end of one")
        await asyncio.sleep(0)
        assert not stopping.done(), "the other is still under way"
        go[JOB_B].set()
        drained = await stopping
        await running
        return drained

    assert asyncio.run(script())
    assert begun == ended == [JOB_A, JOB_B]
