"""Long polls: a call that has no news sleeps until something it depends on has changed, or its time is over.

Every change of state belongs to topics; a topic is a counter and the set of those who wait for it to move. A waiter
notes the counter BEFORE it looks at the state, so a change in between is never missed and nobody polls.
"""

import asyncio
from collections.abc import Iterable
from enum import StrEnum


class Topic(StrEnum):
    """What a change may be about."""

    INPUTS = "inputs"
    """Prepared inputs, and who prepares them."""
    CAPTURE = "capture"
    """What may be leased: needs, live leases, room in the store."""
    WINDOWS = "windows"
    """What may be ordered, and which refs a window has."""
    GANG = "gang"
    """Incarnations: opened, closed."""


class Waiting:
    """Counters and waiters of all topics. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._counters = dict.fromkeys(Topic, 0)
        self._waiters: dict[Topic, set[asyncio.Future[None]]] = {topic: set() for topic in Topic}
        self._closed = False

    def counter(self, topic: Topic) -> int:
        """How often `topic` has changed; to be read before the state is looked at."""
        return self._counters[topic]

    def waiters(self) -> int:
        """How many wait for any topic."""
        return sum(map(len, self._waiters.values()))

    def changed(self, topics: Iterable[Topic]) -> None:
        """Wake everybody who waits for one of `topics`."""
        for topic in topics:
            self._counters[topic] += 1
            waiters, self._waiters[topic] = self._waiters[topic], set()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def close(self) -> None:
        """End all waiting, now and from now on: the service stops."""
        self._closed = True
        self.changed(Topic)

    async def until_changed(self, topic: Topic, seen: int, *, seconds: float) -> bool:
        """Sleep until `topic`'s counter differs from `seen`; False when `seconds` passed before that, or on `close`."""
        if self._closed:
            return False
        if self._counters[topic] != seen:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[topic].add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters[topic].discard(waiter)
        return not self._closed
