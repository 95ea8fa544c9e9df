"""Overlap of computing and storing: while one group is put and committed, the next one runs through the target.

One thread stores; between it and the computing thread waits at most one group, so that at most three groups of a
producer are in memory and a hang on either side stops the other within one group.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final

from eyas_contract.wire import CaptureLease
from eyas_runtime.capture.engine import Outcome

WAITING_MAX: Final = 1
_Group = tuple[CaptureLease, Sequence[Outcome]]
Store = Callable[[CaptureLease, Sequence[Outcome]], None]


class Pipeline:
    """Hands groups to `store` in another thread, in order; `fail` hears what ends that thread."""

    def __init__(self, store: Store, fail: Callable[[BaseException], None]) -> None:
        self._store = store
        self._fail = fail
        self._queue: queue.Queue[_Group | None] = queue.Queue(WAITING_MAX)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def submit(self, lease: CaptureLease, outcomes: Sequence[Outcome]) -> bool:
        """Queue one group, waiting for room; False when the storing thread has ended."""
        return self._offer((lease, outcomes))

    def close(self) -> None:
        """Wait until everything queued is stored (or the storing thread has ended)."""
        self._offer(None)
        self._thread.join()

    def _offer(self, group: _Group | None) -> bool:
        while not self._ended.is_set():
            try:
                self._queue.put(group, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _run(self) -> None:
        try:
            while (group := self._queue.get()) is not None:
                self._store(*group)
        except BaseException as error:  # noqa: BLE001 - the top frame of a thread: the producer's loop raises it again
            self._fail(error)
        finally:
            self._ended.set()
