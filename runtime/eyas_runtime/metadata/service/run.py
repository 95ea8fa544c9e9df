"""The life of the service: open the store, listen, tick, and end with the right code.

| how it ends | exit code |
| --- | --- |
| SIGTERM or SIGINT, the job is complete | 0, after a last sweep |
| SIGTERM or SIGINT otherwise | 143: nothing is lost, start it again |
| the address stays taken, or the database file vanished | 75 |
| the database file is damaged | 65: the next store epoch begins |
| a newer store epoch took over | 86 |
| a file, variable or the configuration is wrong | 78 |
| anything else | 1, and the next start finds every committed transaction |

SIGKILL at any instant is as good as any of these: what was answered is on disk, what was not is asked again.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable
from typing import Final

from eyas_contract.errors import EyasError, Fenced, Transient
from eyas_contract.exits import Exit
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.metadata.port import MetadataStore
from eyas_runtime.metadata.service import listen
from eyas_runtime.metadata.service.app import Front
from eyas_runtime.metadata.service.auth import Tokens
from eyas_runtime.metadata.service.clock import Clock, SystemClock
from eyas_runtime.metadata.service.job import Job, new_job
from eyas_runtime.metadata.service.limits import SHUTDOWN_SECONDS, LimitedServer
from eyas_runtime.metadata.service.listen import BACKLOG, bind
from eyas_runtime.metadata.service.prometheus import Telemetry
from eyas_runtime.metadata.service.reader_calls import status_now
from eyas_runtime.metadata.service.settings import Settings
from eyas_runtime.metadata.service.sweeper import Sweeper
from eyas_runtime.metadata.service.tick import TICK_SECONDS, tick
from eyas_runtime.metadata.service.waiting import Waiting
from eyas_runtime.metadata.service.worker import Worker

_log: Final = logging.getLogger(__name__)
CUT_SILENT_SECONDS: Final = 5.0
LAST_SWEEP_SECONDS: Final = 10.0
TERMINATED: Final = 128 + signal.SIGTERM


class Service:
    """One running service; `run` returns its exit code. `on_ready` is called when calls are answered.

    `open_store` runs in the store's thread and everything on the store does; `open_blobs` in the sweeper's thread.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        open_store: Callable[[], MetadataStore],
        open_blobs: Callable[[], BlobStore | None],
        clock: Clock | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._open_store = open_store
        self._clock = clock or SystemClock()
        self._on_ready = on_ready
        self._job: Job | None = None
        self._waiting = Waiting()
        self._telemetry = Telemetry(settings.config.name)
        self._worker = Worker(database=settings.database, after=self._tell_changes, on_death=self._store_died)
        self._sweeper = Sweeper(
            open_blobs=open_blobs, worker=self._worker, job=self._the_job, telemetry=self._telemetry
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[int] | None = None
        self._failure: EyasError | None = None

    async def run(self, listener: socket.socket | None = None) -> int:
        """Serve on `listener` (None: bind the configured address) until told to stop. Raises what made it end."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        tokens = Tokens(self._settings.token_directory, now=time.monotonic())
        owned = listener or await bind(self._settings.host, self._settings.port)
        self._worker.start()
        try:
            with owned:
                await self._worker.run(self._open)
                self._sweeper.start()
                return await self._serve(owned, tokens)
        except Transient:
            # A store that cannot be used any more says so to its callers as "come again"; why is what ends the process.
            if self._failure is not None:
                raise self._failure from None
            raise
        finally:
            await asyncio.to_thread(self._sweeper.stop, seconds=SHUTDOWN_SECONDS)
            await self._close_store()

    def waiters(self) -> int:
        """Long polls that are waiting now."""
        return self._waiting.waiters()

    def stop(self) -> None:
        """End as SIGTERM does; from the loop's thread."""
        self._end(TERMINATED)

    async def _serve(self, listener: socket.socket, tokens: Tokens) -> int:
        assert self._loop is not None and self._ended is not None  # noqa: S101, PT018 set by `run`
        front = Front(
            job=self._the_job,
            worker=self._worker,
            waiting=self._waiting,
            tokens=tokens,
            store_epoch=self._settings.config.store_epoch,
            on_deposed=self._deposed,
            observe=self._telemetry.observe,
            render_metrics=self._render_metrics,
        )
        server = LimitedServer(front.handle)
        front.server = server
        sockets = [await self._loop.create_server(server, sock=listener, backlog=BACKLOG)]
        inner = listen.tunnel_end(listener.getsockname()[0])
        if inner is not None:
            second = await bind(inner, self._settings.port)
            sockets.append(await self._loop.create_server(server, sock=second, backlog=BACKLOG))
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError, RuntimeError):  # a service inside a test's thread gets no signals
                self._loop.add_signal_handler(number, self.stop)
        ticker = asyncio.create_task(self._tick_for_ever(server))
        _log.info("metadata service of job %s: listening on %s", self._settings.config.name, listener.getsockname())
        self._on_ready()
        try:
            code = await self._ended
            if code == TERMINATED:
                code = await self._last_words()
        finally:
            ticker.cancel()
            for served in sockets:
                served.close()
            self._waiting.close()
            server.pre_shutdown()
            await server.shutdown(SHUTDOWN_SECONDS)
        if self._failure is not None:
            raise self._failure
        return code

    async def _last_words(self) -> int:
        """A complete job is left without an object behind; any other is left as it stands."""
        if not await self._worker.run(lambda: self._the_job().is_complete()):
            return TERMINATED
        await asyncio.to_thread(self._sweeper.finish, seconds=LAST_SWEEP_SECONDS)
        return Exit.DONE

    async def _tick_for_ever(self, server: LimitedServer) -> None:
        cut_at = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._worker.run(lambda: tick(self._the_job()))
            except EyasError as error:
                # Leases and hangs are looked at again in a moment; what breaks the store ends the process elsewhere.
                _log.warning("a tick was refused: %s", error)
            if time.monotonic() - cut_at >= CUT_SILENT_SECONDS:
                cut_at = time.monotonic()
                self._telemetry.refused("silent", server.cut_silent())
                self._telemetry.refused("many", server.take_refused())

    def _open(self) -> None:
        store = self._open_store()
        self._worker.watch_file()
        settings = self._settings
        self._job = new_job(
            settings.config,
            store,
            clock=self._clock,
            receipt_key=settings.receipt_key,
            recorded_step=settings.recorded_step,
        )
        self._job.wake_sweeper = self._sweeper.wake
        self._job.want_sweep = self._sweeper.want_sweep

    async def _close_store(self) -> None:
        with contextlib.suppress(Transient):
            if self._job is not None:
                await self._worker.run(self._job.store.close)
        await asyncio.to_thread(self._worker.stop)

    def _the_job(self) -> Job:
        if self._job is None:
            raise Transient("the metadata store is being opened")
        return self._job

    def _render_metrics(self) -> bytes:
        return self._telemetry.render(status_now(self._the_job()))

    def _tell_changes(self) -> None:
        """In the store's thread, after each call: wake those whom its changes concern."""
        if self._job is None or self._loop is None:
            return
        topics = self._job.take_changed()
        if topics:
            self._loop.call_soon_threadsafe(self._waiting.changed, topics)

    def _store_died(self, error: Exception) -> None:
        """In the store's thread: it will answer no more."""
        if isinstance(error, EyasError):
            self._failure = error
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end, int(getattr(error, "exit_code", Exit.CRASH)))

    def _deposed(self, epoch: int) -> None:
        self._failure = Fenced(f"store epoch {epoch} has taken over from {self._settings.config.store_epoch}")
        self._end(int(Exit.FENCED))

    def _end(self, code: int) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(code)
