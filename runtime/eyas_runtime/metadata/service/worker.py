"""The one thread that owns the metadata store: it opens it, makes every call on it, and closes it.

Before an answer leaves, the database file is looked at: SQLite goes on committing to a file that was unlinked, so when
the name no longer leads to the file that was opened, what was just "committed" is gone with the process, and the
process ends without having said otherwise. An error that is not one of ours may have left the connection or the disk
in any state (after a failed fsync nothing can be trusted): the thread ends and the process with it.
"""

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

from eyas_contract.errors import Bug, Corrupt, EyasError, Transient
from eyas_contract.exits import Exit

T = TypeVar("T")
_log: Final = logging.getLogger(__name__)
QUEUE_MAX: Final = 10_000
"""Calls that wait for the thread; beyond it callers are told to come again."""
_Job = tuple[Callable[[], Any], "Future[Any]"]


class FileGone(EyasError):
    """The database file was deleted or replaced under us: whoever made this process decides what happens now."""

    exit_code = Exit.TEMPORARY


class Worker:
    """Runs functions one after the other in its thread.

    `after` runs in the thread after every call, before its answer is delivered (it tells waiters what changed).
    `on_death` is called once, from the thread, when it ends because of an error.
    """

    def __init__(
        self, *, database: Path | None, after: Callable[[], None], on_death: Callable[[Exception], None]
    ) -> None:
        self._database = database
        self._identity: tuple[int, int] | None = None
        self._after = after
        self._on_death = on_death
        self._jobs: queue.Queue[_Job | None] = queue.Queue(QUEUE_MAX)
        self._thread = threading.Thread(target=self._run, name="metadata-store", daemon=True)
        self._dead = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the calls that wait finish, then end the thread and wait for it."""
        self._jobs.put(None)
        self._thread.join()

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        """Queue `call`. Raises `Transient` when too many wait or the thread is gone."""
        future: Future[T] = Future()
        if self._dead:
            raise Transient("the metadata service is being restarted")
        try:
            self._jobs.put_nowait((call, future))
        except queue.Full:
            raise Transient("the metadata service has too many calls waiting", retry_after_seconds=1.0) from None
        return future

    def call(self, call: Callable[[], T]) -> T:
        """Run `call` in the thread and wait for it, from another thread."""
        return self.submit(call).result()

    async def run(self, call: Callable[[], T]) -> T:
        """Run `call` in the thread and wait for it, from the event loop. What was begun is never undone by a cancel."""
        return await asyncio.wrap_future(self.submit(call))

    def watch_file(self) -> None:
        """From now on (the store is open) the database's name must lead to the file that it leads to now."""
        if self._database is not None:
            found = os.stat(self._database)
            self._identity = (found.st_dev, found.st_ino)

    def _check_file(self) -> None:
        if self._identity is None or self._database is None:
            return
        try:
            found = os.stat(self._database)
        except OSError as error:
            raise FileGone(f"the database {self._database} is gone: {error.strerror}") from error
        if found.st_nlink == 0 or (found.st_dev, found.st_ino) != self._identity:
            raise FileGone(f"the database {self._database} was replaced by another file")

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, future = job
            try:
                self._one(call, future)
            except Exception as error:  # noqa: BLE001 the top frame of the store's thread
                _log.exception("the store's thread ends")
                self._die(error, future)
                return

    def _one(self, call: Callable[[], Any], future: "Future[Any]") -> None:
        if not future.set_running_or_notify_cancel():
            return
        self._check_file()
        try:
            result = call()
        except (Bug, Corrupt):
            raise
        except EyasError as error:
            self._check_file()
            self._after()
            future.set_exception(error)
            return
        self._check_file()
        self._after()
        future.set_result(result)

    def _die(self, error: Exception, future: "Future[Any]") -> None:
        self._dead = True
        self._on_death(error)
        waiting = [] if future.done() else [future]
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                waiting.append(job[1])
        for each in waiting:
            if each.running() or each.set_running_or_notify_cancel():
                each.set_exception(Transient("the metadata service is being restarted"))
