"""Shell: once a minute all jobs and all children are listed, whatever the streams say. Repairs every missed event.

One list per kind and namespace serves all jobs, so that jobs at rest cost the API server nothing of their own. Every
job found is woken, one after the other with a pause: woken at once, five hundred jobs would come due together from then
on, and a death that is heard of at that moment would wait behind all of them. A list that fails is made again soon; the
probe sees how old the last one is. A namespace that may not be listed (it is gone, or its role is) holds up no other
one.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection
from typing import Final, Protocol

from eyas_contract.errors import EyasError
from eyas_operator.errors import Refused
from eyas_operator.handlers.hearing import Hearing
from eyas_operator.queue.workers import JobKey

log = logging.getLogger(__name__)
RETRY_SECONDS: Final = 5.0
WAKE_SECONDS: Final = 0.01
"""Between the looks at two jobs that a list found: about what two looks cost."""


class Lists(Protocol):
    """Lists that refresh the caches."""

    async def relist(self, namespace: str) -> Collection[tuple[str, str]]:
        """List everything in `namespace`; gives namespace and name of every job. Raises `Transient` or `Refused`."""
        ...

    def versions(self) -> dict[str, int]:
        """Version of every job and child that the caches hold, by UID."""
        ...


class Resync:
    """Lists again and again."""

    def __init__(
        self,
        lists: Lists,
        namespaces: Collection[str],
        wake: Callable[[JobKey, float], None],
        hearing: Hearing,
        *,
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        """`wake(job, seconds)` asks for a look at a job after so long at the latest; `clock` is monotonic."""
        self._lists = lists
        self._namespaces = namespaces
        self._wake = wake
        self._hearing = hearing
        self._seconds = seconds
        self._clock = clock
        self.synced = False
        """Everything was listed at least once."""
        self.last = clock()
        """When everything was last listed, or when the first list began."""
        self.missed = 0
        """Changes that the streams never brought, as far as lists showed."""
        self.stale = 0
        """Lists in a row that showed such changes."""
        self.served: frozenset[str] = frozenset()
        """Namespaces that the last list found open to us."""

    async def first(self) -> None:
        """The first list, repeated until it succeeds. Until now nobody expected one."""
        self.last = self._clock()
        for attempt in itertools.count():
            await asyncio.sleep(RETRY_SECONDS if attempt else 0.0)
            if await self._all():
                return

    async def run(self) -> str:
        """List until a namespace opens that was closed to the first list: it has no streams. Says which."""
        streamed = self.served
        while self.served <= streamed:
            await asyncio.sleep(self._seconds if self._clock() - self.last < self._seconds else RETRY_SECONDS)
            await self._all()
        return f"{', '.join(sorted(self.served - streamed))} may be looked at now, and needs streams"

    async def _all(self) -> bool:
        served = set()
        try:
            for namespace in self._namespaces:
                if await self._listed(namespace):
                    served.add(namespace)
        except EyasError as error:
            log.warning("not everything could be listed", extra={"error": str(error)})
            return False
        if not served:
            return False
        self.served = frozenset(served)
        missed = self._hearing.listed(self._lists.versions())
        self.missed += missed
        self.stale = self.stale + 1 if missed else 0
        if missed:
            log.warning("the watch streams missed changes", extra={"changes": missed})
        self.synced, self.last = True, self._clock()
        return True

    async def _listed(self, namespace: str) -> bool:
        """Whether it may be listed. Raises every other error."""
        try:
            found = await self._lists.relist(namespace)
        except Refused as error:
            log.warning("a namespace is not served", extra={"namespace": namespace, "error": str(error)})
            return False
        for turn, key in enumerate(sorted(found)):
            self._wake(JobKey(*key), turn * WAKE_SECONDS)
        return True
