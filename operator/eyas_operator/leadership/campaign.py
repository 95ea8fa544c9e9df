"""Shell: one process's part in the election: wait until it leads, hold the Lease, give it back.

Nothing but the clock and the store is asked. `leading` is a plain comparison, so that it can stand before every write;
it turns false by time alone, also in a process that was paused and knows nothing yet.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, Protocol

from eyas_contract.errors import Conflict, EyasError
from eyas_operator.leadership.election import (
    RETRY_SECONDS,
    Lease,
    Sighting,
    Wait,
    claimed,
    decide,
    given_back,
    leads_until,
    sighted,
)
from eyas_operator.world import time_of

log = logging.getLogger(__name__)
CALL_SECONDS: Final = 4.0
"""A call that takes longer is given up, so that a second one fits into the time of a leader."""
JITTER: Final = 0.1


class LeaseStore(Protocol):
    """The one Lease. Raises an `EyasError` when it cannot be reached."""

    async def read(self) -> Lease | None:
        """The Lease as it is, never from a cache; None where there is none."""
        ...

    async def write(self, lease: Lease) -> Lease:
        """Create (no version) or replace it; gives it as stored. Raises `Conflict` if it is not at that version."""
        ...


class Campaign:
    """One candidate."""

    def __init__(self, store: LeaseStore, me: str, *, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        """`me` is unique among live processes; `clock` is monotonic, `wall` gives Unix seconds for people."""
        self._store = store
        self._me = me
        self._clock = clock
        self._wall = wall
        self._sighting: Sighting | None = None
        self._held: Lease | None = None
        self._until = 0.0
        self.last_try = self.last_look = clock()
        """When the Lease was last asked for, and when with success."""

    @property
    def leading(self) -> bool:
        """Whether writes are allowed now."""
        return self._held is not None and self._clock() < self._until

    async def win(self) -> None:
        """Until this process leads."""
        while not self.leading:
            pause = await self._try()
            if not self.leading:
                await asyncio.sleep(pause * (1 + random.uniform(0, JITTER)))  # noqa: S311 - spreads load only
        log.info("this process leads", extra={"identity": self._me})

    async def hold(self) -> None:
        """Renew until the Lease is lost; then return. What was under way must not be finished."""
        while self.leading:
            await asyncio.sleep(min(RETRY_SECONDS, max(self._until - self._clock(), 0.0)))
            if self.leading:
                await self._try()
        log.error("the lease is lost", extra={"identity": self._me})

    async def give_back(self) -> None:
        """Let the next candidate begin at once. Does nothing for a process that does not lead; never raises."""
        leading, self._held = self.leading, None
        if not leading:
            return
        try:
            async with asyncio.timeout(CALL_SECONDS):
                # Read again: a renewal may have been cut off after it was written.
                lease = await self._store.read()
                if lease is not None and lease.holder == self._me:
                    await self._store.write(given_back(lease, time_of(self._wall())))
            log.info("the lease is given back", extra={"identity": self._me})
        except (EyasError, TimeoutError) as error:
            log.warning("the lease runs out by itself", extra={"error": str(error)})

    async def _try(self) -> float:
        """One look and, where the rules allow it, one write. Gives the pause to the next."""
        self.last_try = self._clock()
        try:
            async with asyncio.timeout(self._call_seconds()):
                return await (self._look_and_claim() if self._held is None else self._renew(self._held))
        except Conflict:
            return RETRY_SECONDS
        except (EyasError, TimeoutError) as error:
            # A refusal too: rights are put right without a restart of ours.
            log.warning("the lease cannot be reached", extra={"error": str(error) or "timeout"})
            return RETRY_SECONDS

    def _call_seconds(self) -> float:
        """A leader's call ends with its time: an answer after that would come too late to count."""
        return min(CALL_SECONDS, max(self._until - self._clock(), 0.05)) if self._held is not None else CALL_SECONDS

    async def _renew(self, held: Lease) -> float:
        """A leader knows the version of its Lease and need not look first, unless an earlier write had no answer."""
        try:
            await self._claim(held)
            return RETRY_SECONDS
        except Conflict:
            return await self._look_and_claim()

    async def _look_and_claim(self) -> float:
        lease = await self._store.read()
        self.last_look = now = self._clock()
        self._sighting = sighted(self._sighting, lease, now) if lease is not None else None
        if self._held is not None and (lease is None or lease.holder != self._me):
            # Seen with another holder: no need to wait for our own time to run out, and no way back.
            self._held = None
            return RETRY_SECONDS
        decision = decide(self._sighting, self._me, now)
        if isinstance(decision, Wait):
            return decision.seconds
        await self._claim(decision.over)
        return RETRY_SECONDS

    async def _claim(self, over: Lease | None) -> None:
        sent = self._clock()
        stored = await self._store.write(claimed(over, self._me, time_of(self._wall())))
        self._held, self._until = stored, leads_until(sent)
        self.last_look = self._clock()
        self._sighting = Sighting(lease=stored, seconds=self.last_look)
