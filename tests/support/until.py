"""Bounded waiting inside an event loop, for a fact about objects of this process."""

import asyncio
from collections.abc import Callable

_STEPS_MAX = 60_000


async def until(fact: Callable[[], object], what: str) -> None:
    """Let other tasks run until `fact()` is true; fails naming `what` after about a minute."""
    for _ in range(_STEPS_MAX):
        if fact():
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"never came: {what}")
