"""Turns: one piece of long computing in each round of the event loop, whoever else is ready to compute, too.

Planning a job with many pods takes tens of milliseconds. When the answers for thirty jobs come at once, thirty plans in
a row would hold the loop for seconds on a busy node, and the Lease, whose renewal is answered meanwhile, would run out.
"""

import asyncio
from types import TracebackType


class Turns:
    """`async with turns:` before the computing, which must not wait for anything inside. First come, first served."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._turn.acquire()
        try:
            # Held over one round: whoever is ready now queues behind, and what the network brought is looked at first.
            await asyncio.sleep(0)
        except BaseException:
            self._turn.release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turn.release()
