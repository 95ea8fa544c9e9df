"""Claims about long polls: no news is missed, nobody polls."""

import asyncio

import pytest

from eyas_runtime.metadata.service.waiting import Topic, Waiting


def test_a_change_between_the_look_and_the_sleep_is_not_missed() -> None:
    async def scenario() -> bool:
        waiting = Waiting()
        seen = waiting.counter(Topic.GANG)
        waiting.changed([Topic.GANG])
        return await waiting.until_changed(Topic.GANG, seen, seconds=3600.0)

    assert asyncio.run(scenario())


@pytest.mark.parametrize(("topic", "woken"), [(Topic.GANG, True), (Topic.CAPTURE, False)])
def test_only_those_who_wait_for_the_topic_are_woken(topic: Topic, woken: bool) -> None:
    async def scenario() -> bool:
        waiting = Waiting()
        sleeper = asyncio.create_task(waiting.until_changed(topic, waiting.counter(topic), seconds=3600.0))
        await asyncio.sleep(0)
        waiting.changed([Topic.GANG])
        for _ in range(5):
            await asyncio.sleep(0)
        finished = sleeper.done()
        sleeper.cancel()
        return finished

    assert asyncio.run(scenario()) is woken


def test_the_end_of_the_wait_is_told_apart_from_news() -> None:
    async def scenario() -> bool:
        waiting = Waiting()
        return await waiting.until_changed(Topic.GANG, waiting.counter(Topic.GANG), seconds=0.0)

    assert asyncio.run(scenario()) is False


def test_a_service_that_stops_keeps_nobody_waiting() -> None:
    async def scenario() -> tuple[bool, bool]:
        waiting = Waiting()
        sleeper = asyncio.create_task(waiting.until_changed(Topic.INPUTS, 0, seconds=3600.0))
        await asyncio.sleep(0)
        waiting.close()
        return await sleeper, await waiting.until_changed(Topic.GANG, 1, seconds=3600.0)

    assert asyncio.run(scenario()) == (False, False)


def test_waiters_that_left_leave_nothing_behind() -> None:
    async def scenario() -> int:
        waiting = Waiting()
        for _ in range(10):
            task = asyncio.create_task(waiting.until_changed(Topic.GANG, 0, seconds=3600.0))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return waiting.waiters()

    assert asyncio.run(scenario()) == 0
