"""Calls that end when we say so, although the library underneath may never return.

A call against a dead Mooncake master blocks for seconds, one on a hung NFS mount for ever, and neither can be
cancelled. So each runs in a worker thread, and the caller stops waiting at its deadline. The thread stays behind with
everything its call needs (memory above all) until it returns. Such threads are counted: beyond a bound every further
call is refused at once, so a dead store costs a fixed number of threads.
"""

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, TypeVar, cast

from eyas_contract.errors import Bug, Transient

T = TypeVar("T")
Progress = Callable[[int], None]

WORKERS_MAX: Final = 16
"""Concurrent calls of one store client: more than the transfer threads of any adapter."""
STUCK_MAX: Final = 8
"""Abandoned calls after which the store counts as away."""


class _Call:
    """One call: its work, and the queue by which pieces and the end reach the caller."""

    __slots__ = ("abandoned", "error", "events", "result", "work")

    def __init__(self, work: Callable[[Progress], object]) -> None:
        self.work: Callable[[Progress], object] | None = work
        self.events: SimpleQueue[int | None] = SimpleQueue()
        self.result: object = None
        self.error: BaseException | None = None
        self.abandoned = False

    def run(self) -> None:
        work = self.work
        if work is None:
            raise Bug("a bounded call ran twice")
        try:
            self.result = work(self.events.put)
        except BaseException as error:  # noqa: BLE001 - top frame of a worker: the error belongs to the waiting caller
            self.error = error
        # Whatever the call kept alive (buffers, registrations) goes with its work, not with the caller's reference.
        self.work = None
        self.events.put(None)


class BoundedCalls:
    """Runs calls in daemon threads and waits for each no longer than its deadline."""

    def __init__(
        self, name: str, *, seconds: float, workers_max: int = WORKERS_MAX, stuck_max: int = STUCK_MAX
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._workers_max = workers_max
        self._stuck_max = stuck_max
        self._condition = threading.Condition()
        self._idle: list[SimpleQueue[_Call | None]] = []
        self._workers = 0
        self._stuck = 0
        self._closed = False

    @property
    def stuck(self) -> int:
        """Calls that were abandoned and have not returned yet."""
        return self._stuck

    def run(
        self,
        work: Callable[[Progress], T],
        on_piece: Progress | None = None,
        *,
        what: str,
        seconds: float | None = None,
    ) -> T:
        """Result of `work(progress)`, called in a worker thread; each number it reports goes to `on_piece` here.

        Raises what `work` raises, and `Transient`, naming `what`, when it did not end within `seconds`.
        """
        limit = self._seconds if seconds is None else seconds
        ends = time.monotonic() + limit
        call = _Call(work)
        self._hand_out(call, ends, what)
        try:
            while (event := call.events.get(timeout=max(0.0, ends - time.monotonic()))) is not None:
                if on_piece is not None:
                    on_piece(event)
        except Empty:
            self._abandon(call)
            raise Transient(f"{self._name}: {what} did not return within {limit:g} s") from None
        except BaseException:
            self._abandon(call)
            raise
        if call.error is not None:
            raise call.error
        return cast(T, call.result)

    def close(self) -> None:
        """Let idle workers end; a stuck one ends with its call."""
        with self._condition:
            self._closed = True
            for inbox in self._idle:
                inbox.put(None)
            self._idle.clear()

    def _hand_out(self, call: _Call, ends: float, what: str) -> None:
        with self._condition:
            if self._closed:
                raise Transient(f"{self._name}: closed")
            if self._stuck >= self._stuck_max:
                raise Transient(f"{self._name}: {self._stuck} earlier calls never returned; not trying {what}")
            while not self._idle and self._workers >= self._workers_max:
                if not self._condition.wait(max(0.0, ends - time.monotonic())):
                    raise Transient(f"{self._name}: all {self._workers} workers are busy; {what} did not start")
            if self._idle:
                inbox = self._idle.pop()
            else:
                inbox = SimpleQueue()
                self._workers += 1
                name = f"{self._name}-{self._workers}"
                threading.Thread(target=self._serve, args=(inbox,), name=name, daemon=True).start()
        inbox.put(call)

    def _abandon(self, call: _Call) -> None:
        with self._condition:
            # A call whose worker has already noted its end is not stuck.
            if call.work is not None:
                call.abandoned = True
                self._stuck += 1

    def _serve(self, inbox: "SimpleQueue[_Call | None]") -> None:
        while (call := inbox.get()) is not None:
            call.run()
            with self._condition:
                if call.abandoned:
                    self._stuck -= 1
                call = None
                if self._closed:
                    break
                self._idle.append(inbox)
                self._condition.notify()
        with self._condition:
            self._workers -= 1
