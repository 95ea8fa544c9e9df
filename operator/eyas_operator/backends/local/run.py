"""`local_run`: the operator on this machine, from a job file to its end.

The loop makes one pass of the common reconciler whenever something changed (a process ended or got ready, a claim
vanished) and once a second in any case. Everything it decides is in DIR before it acts, so it may be killed anywhere:
its pods die with it, and the next run with the same DIR goes on.
"""

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eyas_contract.errors import UserError
from eyas_contract.exits import Exit
from eyas_contract.wire import StatusReply
from eyas_operator.api.status import JobStatus, Stage
from eyas_operator.backends.local import job as jobs
from eyas_operator.backends.local.addresses import address_of
from eyas_operator.backends.local.claims import Claims
from eyas_operator.backends.local.cluster import LocalCluster, LocalJob
from eyas_operator.backends.local.environment import LocalEnvironment
from eyas_operator.backends.local.folder import Workdir, open_append, read_json, replace_json
from eyas_operator.backends.local.kubelet import Kubelet, bury
from eyas_operator.backends.local.lock import owned
from eyas_operator.backends.local.mounts import Sources
from eyas_operator.backends.local.objects import Objects
from eyas_operator.backends.local.result import result_of
from eyas_operator.backends.local.secrets import Secrets
from eyas_operator.cluster import Event
from eyas_operator.policies.moment import CONFIG_ERROR
from eyas_operator.reconciler import Reconciler
from eyas_operator.settings import Settings
from eyas_operator.status import is_true
from eyas_operator.telemetry import Telemetry
from eyas_operator.world import time_of

SETTINGS: Final = Settings(resync_seconds=1.0, progress_seconds=1.0)
"""Everything is near: look often, and show fast numbers at once."""
OPERATOR_LOG: Final = "operator-0.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """What a caller may show after a pass."""

    status: JobStatus
    report: StatusReply | None
    """The last words of the metadata service; None before the first."""
    news: tuple[Event, ...] = ()
    """What happened since the last event."""
    already_complete: bool = False
    """The run had ended before; nothing was started."""


def _ignore(_event: RunEvent) -> None:
    return None


def local_run(
    job_file: Path,
    workdir: Path,
    *,
    volumes: Mapping[str, Path],
    on_event: Callable[[RunEvent], None] = _ignore,
    python: str = sys.executable,
) -> int:
    """Run a job to its end on this machine.

    Returns the exit code: 0 Complete, 78 Failed by a mistake in the job or its inputs, 1 Failed otherwise, 75 stopped
    by a signal.

    `volumes` maps volume or claim names to folders. Raises `UserError` (`SpecError` with one line per error) for a
    job or a machine that cannot work, `Transient` when another runner owns the folder, `OSError` when DIR cannot be
    written (all pods have ended then, and the next run goes on). Call it from a thread that outlives it: the pods die
    with that thread.
    """
    loaded = jobs.load(job_file)
    folders = Workdir(workdir.resolve())
    folders.make()
    with owned(folders.lock):
        local = jobs.admitted(loaded, folders, now=time.time())
        bury(local.identity.uid)
        status = jobs.stored_status(folders)
        if status.stage is Stage.ENDED and not any(folders.pods.iterdir()):
            return _already(folders, status, on_event)
        claims = Claims(folders.claims, local.identity.stem)
        where = jobs.environment(loaded, local, folders, claims, volumes, python)
        jobs.check_paths(loaded, local.identity, where)
        mapped = jobs.mapped_claims(loaded.job, volumes)
        return asyncio.run(_Run(local, folders, where, claims, mapped, on_event).run())


def _already(folders: Workdir, status: JobStatus, on_event: Callable[[RunEvent], None]) -> int:
    replace_json(folders.processes, [])
    if read_json(folders.result) is None:
        replace_json(folders.result, result_of(status, None, created=jobs.created_at(folders)))
    on_event(RunEvent(status=status, report=None, already_complete=True))
    return _exit_code(status)


def _exit_code(status: JobStatus) -> int:
    if is_true(status, "Complete"):
        return int(Exit.DONE)
    mistake = any(it.type == "Failed" and it.status == "True" and it.reason == CONFIG_ERROR for it in status.conditions)
    return int(Exit.CONFIG if mistake else Exit.CRASH)


class _Run:
    """One life of the runner."""

    def __init__(
        self,
        job: LocalJob,
        folders: Workdir,
        where: LocalEnvironment,
        claims: Claims,
        mapped: Mapping[str, Path],
        on_event: Callable[[RunEvent], None],
    ) -> None:
        self._job = job
        self._folders = folders
        self._where = where
        self._claims = claims
        self._mapped = mapped
        self._on_event = on_event
        self._news: list[Event] = []
        self._stops = 0

    async def run(self) -> int:
        """Make passes until the end."""
        self._wake = asyncio.Event()
        identity = self._job.identity
        objects = Objects(self._folders.objects)
        secrets = Secrets(self._folders.secrets, identity.job_uid)
        sources = Sources(objects=objects, claims=self._claims, secrets=secrets, mapped=self._mapped.get)
        self._kubelet = Kubelet(
            self._folders,
            sources,
            identity.uid,
            lambda pod: address_of(identity.job_uid, pod.role, pod.index),
            self._wake.set,
            lambda: time_of(time.time()),
        )
        self._cluster = LocalCluster(
            self._job, self._folders, self._kubelet, objects, self._claims, secrets, self._told
        )
        reconciler = Reconciler(self._cluster, self._where, SETTINGS, time.time, Telemetry())
        with self._signals():
            try:
                return await self._passes(reconciler)
            finally:
                await self._kubelet.kill_all()
                self._kubelet.close()
                self._cluster.close()

    async def _passes(self, reconciler: Reconciler) -> int:
        identity = self._job.identity
        while True:
            self._wake.clear()
            outcome = await reconciler.reconcile(identity.namespace, identity.name)
            if self._kubelet.trouble is not None:
                raise self._kubelet.trouble
            status = outcome.status
            if status is not None:
                self._show(status)
                self._refuse_invalid(status)
                swept = not self._cluster.finalizers
                if status.stage is Stage.ENDED and swept and not outcome.acted and not self._kubelet.pods:
                    return self._finished(status)
                if self._cluster.suspended and status.stage is Stage.SUSPENDED and not self._kubelet.pods:
                    return int(Exit.TEMPORARY)
            if self._stops > 1:
                return int(Exit.TEMPORARY)
            await self._sleep(outcome.wake_seconds)

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), timeout=min(seconds, SETTINGS.resync_seconds))
        except TimeoutError:
            return

    def _refuse_invalid(self, status: JobStatus) -> None:
        """On a cluster a rejected spec waits to be repaired; here nobody could repair it while we run."""
        accepted = next((condition for condition in status.conditions if condition.type == "Accepted"), None)
        if accepted is not None and accepted.status == "False":
            raise UserError(f"{accepted.reason}: {accepted.message}")

    def _show(self, status: JobStatus) -> None:
        news, self._news = tuple(self._news), []
        self._on_event(RunEvent(status=status, report=self._cluster.last_report, news=news))

    def _told(self, events: tuple[Event, ...]) -> None:
        self._news += events
        lines = "".join(f"{time_of(time.time())} {event.type} {event.reason}: {event.message}\n" for event in events)
        with open_append(self._folders.logs / OPERATOR_LOG) as log, open(log, "wb", closefd=False) as file:
            file.write(lines.encode())

    def _finished(self, status: JobStatus) -> int:
        created = jobs.created_at(self._folders)
        replace_json(self._folders.result, result_of(status, self._cluster.last_report, created=created))
        return _exit_code(status)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM suspend the job, so that it drains; a second one ends everything at once."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        for number in numbers:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self._stops += 1
        self._cluster.suspended = True
        self._wake.set()
