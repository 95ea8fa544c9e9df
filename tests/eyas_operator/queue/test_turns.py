"""Long computing takes turns: between two plans the event loop looks at everybody else, the Lease above all."""

import asyncio
import itertools

import pytest

from eyas_operator.queue.turns import Turns
from eyas_operator.reconciler import Reconciler
from support.model_cluster import TELEMETRY, ModelCluster
from support.operator_world import ENVIRONMENT, JOB, NOW, SETTINGS

JOBS = 12


def test_between_two_turns_the_loop_goes_round() -> None:
    seen: list[str] = []

    async def computes(turns: Turns) -> None:
        async with turns:
            seen.append("computed")

    async def others() -> None:
        while seen.count("computed") < JOBS:
            seen.append("round")
            await asyncio.sleep(0)

    async def script() -> None:
        turns = Turns()
        await asyncio.gather(*(computes(turns) for _ in range(JOBS)), others())

    asyncio.run(script())
    assert seen.count("computed") == JOBS
    assert all(pair != ("computed", "computed") for pair in itertools.pairwise(seen))


def test_plans_of_many_jobs_that_are_ready_at_once_take_turns() -> None:
    """Without turns all of them are made in one round, as the second half shows."""

    def longest_run(turns: Turns | None) -> int:
        seen: list[str] = []

        def clock() -> float:
            seen.append("pass")
            return NOW

        async def others() -> None:
            for _ in range(JOBS * 6):
                seen.append("round")
                await asyncio.sleep(0)

        async def script() -> None:
            passes = [
                Reconciler(ModelCluster(), ENVIRONMENT, SETTINGS, clock, TELEMETRY, turns).reconcile(
                    JOB.namespace, JOB.name
                )
                for _ in range(JOBS)
            ]
            await asyncio.gather(others(), *passes)

        asyncio.run(script())
        after_the_first_looks = seen[seen.index("pass") + JOBS :]
        return max(map(len, "".join("p" if it == "pass" else " " for it in after_the_first_looks).split()), default=0)

    # A pass asks for the time when it begins, when it plans, when it measures and when it ends.
    assert longest_run(Turns()) <= 4
    assert longest_run(None) >= JOBS


def test_a_turn_that_is_given_up_is_given_to_the_next() -> None:
    async def script() -> None:
        turns = Turns()

        async def waits() -> None:
            async with turns:
                pytest.fail("it was cancelled")

        async def computes() -> str:
            async with turns:
                return "computed"

        first = asyncio.create_task(waits())
        second = asyncio.create_task(computes())
        await asyncio.sleep(0)
        first.cancel()
        assert await asyncio.wait_for(second, 10) == "computed"

    asyncio.run(script())
