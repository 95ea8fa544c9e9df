"""The sign of life of one rank: a counter that only work moves, sent by a thread that cannot fake it.

The service renews the gang's hang lease while the counters of all ranks move, so a rank that is stuck is found even
though this thread goes on. It is also how a rank that sits in a collective learns that its incarnation is over: the
answer `Closed` or `Fenced` ends the process on the spot, because its main thread may never return.
"""

import threading
from collections.abc import Callable
from typing import Final, Literal

from eyas_contract import wire
from eyas_contract.client import MetadataClient
from eyas_contract.errors import EyasError, Transient
from eyas_contract.ids import Incarnation

INTERVAL_SECONDS: Final = 2.0
CALL_SECONDS: Final = 10.0
Phase = Literal["starting", "idle", "working", "saving"]


class Work:
    """What a rank has done so far; `tick` is called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self.phase: Phase = "starting"

    def tick(self) -> None:
        """One more micro-batch, shard, slice or file."""
        with self._lock:
            self._count += 1

    @property
    def count(self) -> int:
        """Ticks so far."""
        return self._count


class Heartbeat:
    """Sends `work` every `interval_seconds` until closed; calls `over` when the incarnation is."""

    def __init__(
        self,
        client: MetadataClient,
        *,
        incarnation: Incarnation,
        rank: int,
        work: Work,
        over: Callable[[EyasError], None],
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._client, self._work, self._over, self._interval = client, work, over, interval_seconds
        self._incarnation, self._rank = incarnation, rank
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop beating."""
        self._closed.set()

    def join(self) -> None:
        """Wait for the thread's end after `close`."""
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._client.call(wire.HEARTBEAT, self._beat(), deadline_seconds=CALL_SECONDS)
            except Transient:
                pass
            except EyasError as error:
                if not self._closed.is_set():
                    self._over(error)
                return
            self._closed.wait(self._interval)

    def _beat(self) -> wire.HeartbeatRequest:
        return wire.HeartbeatRequest(
            incarnation=self._incarnation, rank=self._rank, counter=self._work.count, phase=self._work.phase
        )
