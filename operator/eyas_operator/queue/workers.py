"""Shell: takes due keys and makes their passes, a bounded number at once. Everything they decide is in `schedule`.

An exception of a pass is a bug or something unforeseen: it is logged with its traceback, counted, and the pass is
repeated with back-off, so that one job's poison never stops another job. `Fenced` alone ends the workers: another
operator leads, and nothing more may be written.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from eyas_contract.errors import EyasError, Fenced
from eyas_operator.queue.schedule import BACKOFF_BASE_SECONDS, Schedule

log = logging.getLogger(__name__)
DRAIN_SECONDS: Final = 5.0


class JobKey(NamedTuple):
    """One job by name: what an event can say without a read."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a pass means for the queue."""

    wake_seconds: float | None
    """Look again after so long; None: only when somebody asks."""
    error: str = ""
    """Why the pass stopped early; it is then repeated, after `wake_seconds` the first time."""


Pass = Callable[[JobKey], Awaitable[Verdict]]


class Workers:
    """The queue and those who empty it. Use from one event loop only."""

    def __init__(self, make_pass: Pass, *, count: int, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds; `count` passes at most are under way at once."""
        self._pass = make_pass
        self._count = count
        self._clock = clock
        self._schedule: Schedule[JobKey] = Schedule()
        self._changed = asyncio.Event()
        self._running: dict[JobKey, float] = {}
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._stopping = False
        self.failed_passes = 0

    def wake(self, key: JobKey, delay_seconds: float = 0.0) -> None:
        """Ask for a pass over `key`. Never blocks, never drops."""
        self._schedule.wake(key, self._clock(), delay_seconds)
        self._changed.set()

    @property
    def depth(self) -> int:
        """Jobs that are due and wait."""
        return self._schedule.depth(self._clock())

    @property
    def oldest_pass_seconds(self) -> float:
        """Age of the longest pass under way; 0.0 when there is none."""
        return max((self._clock() - started for started in self._running.values()), default=0.0)

    async def run(self) -> None:
        """Make passes until `stop`. Raises `Fenced` when another operator leads."""
        try:
            async with asyncio.TaskGroup() as group:
                while not self._stopping:
                    key = self._schedule.take(self._clock()) if len(self._running) < self._count else None
                    if key is None:
                        await self._idle()
                    else:
                        self._running[key] = self._clock()
                        self._quiet.clear()
                        group.create_task(self._serve(key), name=f"pass over {'/'.join(key)}")
        except* Fenced as lost:
            raise Fenced("another operator leads") from lost

    async def stop(self, drain_seconds: float = DRAIN_SECONDS) -> bool:
        """Begin no new pass and wait for those under way. Whether all of them ended in time."""
        self._stopping = True
        self._changed.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                await self._quiet.wait()
        return not self._running

    async def _serve(self, key: JobKey) -> None:
        try:
            verdict = await self._pass(key)
        except Fenced:
            raise
        except EyasError as error:
            self.failed_passes += 1
            log.error("a pass failed", extra={"error": str(error)})
            verdict = Verdict(wake_seconds=BACKOFF_BASE_SECONDS, error=type(error).__name__)
        except Exception:
            # The top frame of a pass: one job's poison must not stop the other jobs.
            self.failed_passes += 1
            log.exception("a pass failed")
            verdict = Verdict(wake_seconds=BACKOFF_BASE_SECONDS, error="exception")
        finally:
            self._running.pop(key)
            if not self._running:
                self._quiet.set()
        self._file(key, verdict)

    def _file(self, key: JobKey, verdict: Verdict) -> None:
        if verdict.error:
            first = BACKOFF_BASE_SECONDS if verdict.wake_seconds is None else verdict.wake_seconds
            pause = self._schedule.failed(key, self._clock(), first)
            log.info("the pass is repeated", extra={"error": verdict.error, "seconds": pause})
        else:
            self._schedule.done(key, self._clock(), verdict.wake_seconds)
        self._changed.set()

    async def _idle(self) -> None:
        """Until something may be due. A wake-up is never missed: between the look and the wait nothing else runs."""
        self._changed.clear()
        due = self._schedule.next_due() if len(self._running) < self._count else None
        pause = None if due is None else max(due - self._clock(), 0.0)
        try:
            async with asyncio.timeout(pause):
                await self._changed.wait()
        except TimeoutError:
            return
