"""Writes to the pod's log from a thread of its own, so that a log that stands still holds up nobody.

Text goes through byte for byte and in order. When the log takes nothing for so long that the bound is reached, what
comes then is dropped and counted: a rank that waits for its own stderr would hang a whole gang.
"""

import os
import select
import threading
from collections import deque
from typing import Final

PENDING_BYTES_MAX: Final = 8 << 20
"""More than any dump of a dying process; a log that is merely slow loses none."""
_STDERR: Final = 2
FLUSH_SECONDS: Final = 1.0
"""How long a pod that leaves waits for its log: less than the margin before the kubelet kills it."""


class LogWriter:
    """The pod's log. `write` may be called from any thread and never waits for the log."""

    def __init__(self, descriptor: int = _STDERR, *, bytes_max: int = PENDING_BYTES_MAX) -> None:
        self._descriptor = descriptor
        self._bytes_max = bytes_max
        self._changed = threading.Condition()
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._lost = 0
        self._thread: threading.Thread | None = None

    def write(self, text: bytes) -> None:
        """Have `text` written, or drop it where too much waits already."""
        with self._changed:
            if self._pending_bytes + len(text) > self._bytes_max:
                self._lost += len(text)
                return
            self._confess()
            self._append(text)

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Return when all is written, or after `seconds`."""
        with self._changed:
            self._confess()
            self._changed.wait_for(lambda: not self._pending_bytes, seconds)

    def _confess(self) -> None:
        if self._lost:
            self._append(f"\nsupervisor: {self._lost} bytes of stderr are lost: the log did not take them\n".encode())
            self._lost = 0

    def _append(self, text: bytes) -> None:
        self._pending.append(text)
        self._pending_bytes += len(text)
        self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._pending))
                text = self._pending.popleft()
            self._write_all(text)
            with self._changed:
                self._pending_bytes -= len(text)
                self._changed.notify_all()

    def _write_all(self, text: bytes) -> None:
        rest = memoryview(text)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                # Whoever gave us this descriptor shares it with one that wants it so.
                select.select([], [self._descriptor], [])
            except OSError:
                # A full disk or a reader that is gone must not end the pod; later text may fit again.
                return
