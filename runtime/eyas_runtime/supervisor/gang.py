"""What a consumer pod's supervisor tells and asks the metadata service, in threads of its own.

A report or a long poll may take as long as the service is away, and the supervisor must answer to signals and dying
children all the while: threads make the calls and post what came of them; the loop's thread collects it.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from eyas_contract import wire
from eyas_contract.client import MetadataClient
from eyas_contract.errors import Bug, EyasError
from eyas_contract.exits import Exit
from eyas_contract.states import Gang
from eyas_runtime.supervisor.gone import wait_until_unknown
from eyas_runtime.supervisor.policy import Cause, Ended
from eyas_runtime.supervisor.settings import GangSettings

LEAVE_REPORT_SECONDS: Final = 5.0
"""A pod that leaves anyway does not wait longer for the service: the next attempt fences what it left open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeEnd:
    """One life of the pod's ranks that is over."""

    number: int
    time: float
    """Unix seconds."""
    ends: tuple[Ended, ...]

    @property
    def own(self) -> list[Ended]:
        """Ends to be reported: a sibling that we killed died of these, and one that was done did no harm."""
        return [end for end in self.ends if end.cause is Cause.OWN and end.code != Exit.DONE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The incarnation of these processes is closed: they must be killed and started again."""

    processes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The service knows of a life's end, or we were told to stop trying."""

    life: int
    durable_step: int
    refusal: EyasError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The service will not have us: fenced, or a wrong token."""

    error: EyasError


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingToSave:
    """No open incarnation could train or checkpoint, or the whole job is gone: a drain would wait for nothing."""


GangEvent: TypeAlias = Closed | Reported | Refused | NothingToSave


class GangLink:
    """Calls of one supervisor. `notify` is called from other threads whenever `collect` has something new."""

    def __init__(self, settings: GangSettings, notify: Callable[[], None]) -> None:
        self._settings = settings
        self._notify = notify
        self._client = MetadataClient(settings.metadata_url, str(settings.token_file))
        self._events: deque[GangEvent] = deque()
        self._watched: tuple[str, ...] = ()

    def collect(self) -> list[GangEvent]:
        """What came since the last call, in order."""
        events = []
        while self._events:
            events.append(self._events.popleft())
        return events

    def watch(self, processes: Sequence[str]) -> None:
        """Watch the processes of a new life instead of those of the last one."""
        self._watched = tuple(processes)
        self._start("watch", lambda: self._watch(self._watched))

    def report(self, life: LifeEnd, reason: str, *, leaving: bool) -> None:
        """Report the ends that no one of us caused, then ask for the durable step; `Reported` follows.

        A pod that restarts its ranks waits for the service, which they need anyway.
        """
        self._start("report", lambda: self._report(life, reason, leaving=leaving))

    def drain(self, reason: str) -> None:
        """Ask for a checkpoint at a boundary that all ranks are told of, after which they leave."""
        request = wire.DrainRequest(attempt=self._settings.attempt, reason=reason)
        self._start("drain", lambda: self._drain(request))
        self._start("gone", self._gone)

    def _watch(self, processes: tuple[str, ...]) -> None:
        attempt = self._settings.attempt
        request = wire.WatchRequest(attempt=attempt, processes=processes, wait_seconds=wire.WAIT_SECONDS_MAX)
        while self._watched == processes:
            reply = self._client.watch(request)
            if reply.closed:
                self._post(Closed(processes=reply.closed))
                return

    def _report(self, life: LifeEnd, reason: str, *, leaving: bool) -> None:
        limit = LEAVE_REPORT_SECONDS if leaving else None
        try:
            for end in life.own:
                request = self._exit_request(life, end, reason, leaving=leaving)
                self._client.call(wire.EXIT, request, deadline_seconds=limit)
            status = self._client.status(deadline_seconds=limit)
        except EyasError as error:
            self._post(Reported(life=life.number, durable_step=0, refusal=error))
        else:
            self._post(Reported(life=life.number, durable_step=status.durable_step))

    def _exit_request(self, life: LifeEnd, end: Ended, reason: str, *, leaving: bool) -> wire.ExitRequest:
        return wire.ExitRequest(
            attempt=self._settings.attempt,
            rank=self._settings.first_rank + end.slot,
            process=end.process,
            code=end.code,
            reason=reason,
            time=life.time,
            siblings=tuple(other.process for other in life.ends if other.process != end.process),
            leaving=leaving,
        )

    def _drain(self, request: wire.DrainRequest) -> None:
        self._client.drain(request)
        status = self._client.status()
        if status.gang is not Gang.OPEN or status.attempt != request.attempt or status.total_steps == 0:
            self._post(NothingToSave())

    def _gone(self) -> None:
        wait_until_unknown(self._settings.metadata_url)
        self._post(NothingToSave())

    def _start(self, name: str, target: Callable[[], None]) -> None:
        threading.Thread(target=self._guarded, args=(target,), name=f"gang-{name}", daemon=True).start()

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except EyasError as error:
            self._post(Refused(error=error))
        except Exception as error:  # noqa: BLE001 - the top frame of a thread: silence would stop the watching
            self._post(Refused(error=Bug(f"{type(error).__name__}: {error}")))

    def _post(self, event: GangEvent) -> None:
        self._events.append(event)
        self._notify()
