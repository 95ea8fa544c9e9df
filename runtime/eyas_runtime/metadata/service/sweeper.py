"""Deletes what nobody needs, finds what is missing, measures the pool. One thread; the only place of blob calls.

Two different things are deleted. *Released* objects have a row that says so; they go lazily, and the row goes after the
object, so that a crash in between repeats a harmless delete. *Orphans* have no row; how they are told from what is
just being committed, and how a row without an object becomes a lost sample, is in `sweep`.
Nothing here is needed for progress in the next seconds: whatever fails is logged and tried again.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from eyas_contract.errors import EyasError
from eyas_contract.ids import ObjectKey
from eyas_runtime.failpoints import hit
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.metadata.port import StoredObject
from eyas_runtime.metadata.service.job import Job
from eyas_runtime.metadata.service.prometheus import Telemetry
from eyas_runtime.metadata.service.sweep import BATCH, Listing, missing_objects, sweep_orphans
from eyas_runtime.metadata.service.waiting import Topic

_log: Final = logging.getLogger(__name__)
T = TypeVar("T")
SWEEP_SECONDS: Final = 60.0
SWEEP_SECONDS_MIN: Final = 5.0
"""Between two sweeps, however often one is asked for; and the rhythm after the job is complete."""
CAPACITY_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 2.0


class StoreThread(Protocol):
    """What the sweeper needs of the worker."""

    def call(self, call: Callable[[], T]) -> T:
        """Run `call` in the store's thread and wait for it."""
        ...


class Sweeper:
    """See the module docstring. `open_blobs` returns None where the pool is this job's own memory elsewhere: then there
    is nothing to delete, and released rows are simply forgotten."""

    def __init__(
        self,
        *,
        open_blobs: Callable[[], BlobStore | None],
        worker: StoreThread,
        job: Callable[[], Job],
        telemetry: Telemetry,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_blobs = open_blobs
        self._worker = worker
        self._job = job
        self._telemetry = telemetry
        self._monotonic = monotonic
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._last = threading.Event()
        self._sweep_wanted = True
        self._swept_at: float | None = None
        self._measured_at: float | None = None
        self._opened = False
        self._blobs: BlobStore | None = None
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """There may be something to release."""
        self._wake.set()

    def want_sweep(self) -> None:
        """There may be orphans or missing objects: do not wait for the next regular sweep."""
        self._sweep_wanted = True
        self._wake.set()

    def finish(self, *, seconds: float) -> None:
        """Have the thread sweep once more and end; wait for it so long."""
        self._last.set()
        self._join(seconds)

    def stop(self, *, seconds: float) -> None:
        """Ask the thread to end where it is and wait for it so long; a call on a pool that hangs is left behind."""
        self._stop.set()
        self._join(seconds)

    def _join(self, seconds: float) -> None:
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while not (self._stop.is_set() or self._last.is_set()):
            self._guarded(self.once)
            self._wake.wait(RETRY_SECONDS)
            self._wake.clear()
        if not self._stop.is_set():
            self._guarded(self.release)
            self._guarded(self.sweep)
        if self._blobs is not None:
            self._blobs.close()

    def _guarded(self, turn: Callable[[], object]) -> None:
        try:
            turn()
        except EyasError as error:
            _log.warning("the sweep will be tried again: %s", error)
        except Exception:  # noqa: BLE001 the top frame of the sweeper's thread
            _log.exception("the sweep will be tried again")

    def open(self) -> None:
        """Open the pool, once; whatever it raises, the next turn tries again."""
        if not self._opened:
            self._blobs = self._open_blobs()
            self._opened = True

    def once(self) -> None:
        """Release what may go; measure and sweep when it is time."""
        self.open()
        self.release()
        if self._blobs is None:
            return
        now = self._monotonic()
        if self._measured_at is None or now - self._measured_at >= CAPACITY_SECONDS:
            self._measured_at = now
            self.measure()
        if self._sweep_is_due(now):
            self._swept_at, self._sweep_wanted = now, False
            self.sweep()

    def _sweep_is_due(self, now: float) -> bool:
        if self._swept_at is None:
            return True
        since = now - self._swept_at
        if since < SWEEP_SECONDS_MIN:
            return False
        return since >= SWEEP_SECONDS or self._sweep_wanted or self._worker.call(lambda: self._job().is_complete())

    def measure(self) -> None:
        """Note the capacity that the pool reports now."""
        capacity = None if self._blobs is None else self._blobs.capacity()
        total = None if capacity is None else capacity.total_bytes

        def note() -> None:
            job = self._job()
            if job.pool_capacity_bytes != total:
                job.pool_capacity_bytes = total
                job.touch(Topic.CAPTURE, Topic.WINDOWS)

        self._worker.call(note)

    def release(self) -> int:
        """Delete released objects, then their rows; returns how many went."""
        total = 0
        while not self._stop.is_set():
            batch = self._worker.call(lambda: self._job().store.releasable(limit=BATCH))
            gone = [each.key for each in batch if self._delete_released(each.key)]
            if gone:
                self._worker.call(lambda keys=tuple(gone): self._forget(keys))  # type: ignore[misc]
                self._telemetry.deleted("released", len(gone))
                total += len(gone)
            if len(gone) < len(batch) or len(batch) < BATCH:
                break
        return total

    def _delete_released(self, key: ObjectKey) -> bool:
        if self._blobs is None:
            return True
        hit("release.before_delete")
        gone = self._blobs.delete(key)
        hit("release.after_delete")
        return gone

    def _forget(self, keys: Sequence[ObjectKey]) -> None:
        job = self._job()
        job.store.forget_objects(keys)
        job.touch(Topic.CAPTURE, Topic.WINDOWS)

    def sweep(self) -> tuple[int, int]:
        """One sweep of the pool; returns how many orphans were deleted and how many samples were found missing."""
        blobs = self._blobs
        if blobs is None:
            return (0, 0)
        facts = self._worker.call(lambda: self._job().facts)
        found = sweep_orphans(blobs, job_uid=facts.job_uid, store_epoch=facts.store_epoch, live=self._live_keys)
        self._telemetry.deleted("orphan", found.deleted)
        blobs.sweep_temporary(writers_are_gone=self._worker.call(lambda: self._job().is_complete()))
        missing = self._find_missing(blobs, found.listing)
        self._telemetry.swept()
        return (found.deleted, missing)

    def _live_keys(self, keys: Sequence[ObjectKey]) -> frozenset[ObjectKey]:
        return self._worker.call(lambda: self._job().store.live_keys(keys))

    def _find_missing(self, blobs: BlobStore, listing: Listing) -> int:
        missing, after = 0, None
        while not self._stop.is_set():
            page: Sequence[StoredObject] = self._worker.call(
                lambda cursor=after: self._job().store.resident(after=cursor, limit=BATCH)  # type: ignore[misc]
            )
            absent = missing_objects(blobs, page, listing)
            if absent:
                missing += self._worker.call(lambda keys=absent: self._mark_missing(keys))  # type: ignore[misc]
            if len(page) < BATCH:
                break
            after = page[-1].key
        return missing

    def _mark_missing(self, keys: Sequence[ObjectKey]) -> int:
        job = self._job()
        count = job.store.mark_missing(keys, reason="not in the feature store", now=job.clock.wall())
        if count:
            job.touch(Topic.CAPTURE, Topic.WINDOWS)
        return count
