"""Runs the pods of one run: starts them, watches them, ends them, and says at every change what lives.

Lives in the runner's event loop and main thread. Nothing polls for the end of a process: the kernel tells (pidfd), as
it tells of readiness and of restarts inside a pod (inotify). Addresses belong to role and index, so a pod waits for
its predecessor's last process, unlike in a cluster, where it would have an address of its own.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from eyas_contract.errors import Conflict, UserError
from eyas_contract.exits import Exit
from eyas_operator.backends.local import memory, processes
from eyas_operator.backends.local.addresses import taken
from eyas_operator.backends.local.folder import Workdir, remove_tree, replace_json
from eyas_operator.backends.local.inotify import Inotify
from eyas_operator.backends.local.mounts import NotThere, Sources, mount
from eyas_operator.backends.local.objects import job_uid_of, new_uid
from eyas_operator.backends.local.pods import LocalPod, restored
from eyas_operator.names import PodIdentity, Role, pod_identity
from eyas_operator.world import Manifest, Waiting

PORT_WAIT_SECONDS: Final = 5.0
"""How long a port may still be held by a process of ours that is dying."""
RETRY_SECONDS: Final = 0.1


class Kubelet:
    """All pods of one run. `changed` is called after whatever may matter to the next pass."""

    def __init__(
        self,
        workdir: Workdir,
        sources: Sources,
        marker: str,
        address_of: Callable[[PodIdentity], str],
        changed: Callable[[], None],
        clock: Callable[[], str],
    ) -> None:
        """`clock` gives RFC 3339 times; `marker` is in the environment of every process of the run."""
        self._workdir = workdir
        self._sources = sources
        self._marker = marker
        self._address_of = address_of
        self._changed = changed
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._inotify = Inotify()
        self._one_ended = asyncio.Event()
        self._published: list[dict[str, Any]] | None = None
        self._port_seen: dict[str, float] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._memory_timer: asyncio.TimerHandle | None = None
        self.pods: dict[str, LocalPod] = {}
        self.incarnation: tuple[int, str] = (0, "")
        """Attempt and incarnation of the gang, as the service says."""
        self.trouble: UserError | OSError | None = None
        """Why this machine cannot run the pods: an address that is taken, a folder that cannot be written."""
        if self._inotify.descriptor >= 0:
            self._loop.add_reader(self._inotify.descriptor, self._noticed)
        self._inotify.watch(workdir.claims)
        self._restore()
        self._watch_memory()

    def _restore(self) -> None:
        for folder in sorted(self._workdir.pods.iterdir()):
            pod = restored(folder, folder / "log", "", now=self._clock())
            if pod is None:
                remove_tree(folder)
            else:
                self.pods[pod.name] = pod

    # --- what the cluster asks for ---

    def create(self, manifest: Manifest) -> None:
        """Create a pod; it starts now or as soon as what it needs is there. Raises `Conflict` for a stranger's name."""
        name = manifest["metadata"]["name"]
        existing = self.pods.get(name)
        if existing is not None:
            if job_uid_of(existing.manifest) != job_uid_of(manifest):
                raise Conflict(f"pod {name} belongs to another job")
            return
        identity = pod_identity(manifest["metadata"]["labels"])
        if identity is None:
            raise UserError(f"pod {name} has no role and index among its labels")
        folder = self._workdir.pods / name
        remove_tree(folder)
        folder.mkdir(mode=0o700)
        pod = LocalPod(
            manifest=manifest,
            uid=new_uid(),
            created=self._clock(),
            address=self._address_of(identity),
            folder=folder,
            log=self._workdir.logs / f"{identity.role.value}-{identity.index}.log",
        )
        pod.record()
        self.pods[name] = pod
        self._start(pod)

    def delete(self, name: str, uid: str, grace_seconds: float) -> None:
        """Begin to end a pod: SIGTERM, and SIGKILL after the grace; another UID is left alone."""
        pod = self.pods.get(name)
        if pod is None or pod.uid != uid:
            return
        pod.deleted = pod.deleted or self._clock()
        if not pod.running:
            self._forget(pod)
            return
        if grace_seconds > 0:
            pod.signal(signal.SIGTERM)
        self._loop.call_later(max(0.0, grace_seconds), pod.kill)

    # --- lives of pods ---

    def start_waiting(self) -> None:
        """Start what waited for something that may be there now."""
        for pod in list(self.pods.values()):
            if pod.process is None and pod.ended is None and not pod.deleted:
                self._start(pod)

    def _start(self, pod: LocalPod) -> None:
        try:
            self._check_address(pod)
            rewritten = mount(pod.manifest, pod.folder, self._sources)
        except NotThere as error:
            pod.waiting = Waiting(reason="ContainerCreating", message=str(error))
            self._retry_soon()
            return
        try:
            pod.start(self._marker, rewritten, now=self._clock())
        except (FileNotFoundError, PermissionError) as error:
            pod.fail(f"cannot start {error.filename}: {error.strerror}", code=int(Exit.CONFIG), now=self._clock())
            return
        # Before anything that a full disk may refuse: a process that is not watched would never be reaped.
        self._loop.add_reader(pod.pidfd, self._ended, pod)
        self._inotify.watch(pod.folder)
        pod.record()
        self.publish()

    def _check_address(self, pod: LocalPod) -> None:
        """Raises `NotThere` while the address is not free; after a while the trouble is somebody else's program."""
        before = [other for other in self.pods.values() if other.running and other.address == pod.address]
        if before:
            raise NotThere(f"{before[0].name} still runs on {pod.address}")
        for port in pod.ports:
            found = taken(pod.address, port)
            if found is None:
                continue
            since = self._port_seen.setdefault(pod.name, time.monotonic())
            if time.monotonic() - since > PORT_WAIT_SECONDS:
                self.trouble = UserError(found.sentence)
                self._changed()
            raise NotThere(found.sentence)
        self._port_seen.pop(pod.name, None)

    def _retry_soon(self) -> None:
        if self._retry is None:
            self._retry = self._loop.call_later(RETRY_SECONDS, self._retry_now)

    def _retry_now(self) -> None:
        self._retry = None
        with self._noting_trouble():
            self.start_waiting()

    def _ended(self, pod: LocalPod) -> None:
        self._loop.remove_reader(pod.pidfd)
        with self._noting_trouble():
            pod.finish(now=self._clock())
        self._one_ended.set()
        with self._noting_trouble():
            if pod.deleted:
                self._forget(pod)
            self.start_waiting()
            self.publish()
        self._changed()

    @contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        """For callbacks of the loop, whose errors nobody would get: the next pass raises what the disk refused."""
        try:
            yield
        except OSError as error:
            self.trouble = self.trouble or error
            self._changed()

    def _forget(self, pod: LocalPod) -> None:
        self.pods.pop(pod.name, None)
        remove_tree(pod.folder)

    def _noticed(self) -> None:
        self._inotify.clear()
        with self._noting_trouble():
            self.publish()
        self._changed()

    def _watch_memory(self) -> None:
        for pod in list(self.pods.values()):
            limit = memory.limit_bytes(pod.memory_limit) if pod.running else None
            if limit is not None and pod.process is not None:
                used = memory.used_bytes(pod.process.pid, at_least=limit)
                if used > limit:
                    pod.out_of_memory = True
                    pod.kill()
        self._memory_timer = self._loop.call_later(memory.POLL_SECONDS, self._watch_memory)

    # --- what lives ---

    def publish(self) -> None:
        """Replace processes.json if it would change."""
        listed = [entry for pod in self.pods.values() for entry in self._entries(pod)]
        if listed != self._published:
            replace_json(self._workdir.processes, listed, durable=False)
            self._published = listed

    def _entries(self, pod: LocalPod) -> list[dict[str, Any]]:
        identity = pod.identity
        if not pod.running or pod.process is None or identity is None:
            return []
        session = pod.process.pid
        found = [self._entry(pod, identity, f"{identity.role.value}-supervisor", identity.index, session)]
        for child in pod.children():
            there = processes.look(int(child["pid"]))
            if there is not None and there.session == session and not there.zombie:
                found.append(self._entry(pod, identity, str(child["role"]), int(child["index"]), there.pid))
        return found

    def _entry(self, pod: LocalPod, identity: PodIdentity, role: str, index: int, pid: int) -> dict[str, Any]:
        attempt, incarnation = self.incarnation
        in_gang = identity.role is Role.CONSUMER and attempt == identity.serial
        return {
            "role": role,
            "index": index,
            "attempt": identity.serial,
            "incarnation": incarnation if in_gang else "",
            "pid": pid,
            "address": pod.address,
        }

    # --- the end ---

    async def kill_all(self) -> None:
        """SIGKILL every pod and wait for the last of them."""
        for pod in list(self.pods.values()):
            pod.disrupted = pod.disrupted or ("the runner stopped" if pod.running else "")
            pod.kill()
        while any(pod.running for pod in self.pods.values()):
            self._one_ended.clear()
            await self._one_ended.wait()

    def close(self) -> None:
        """End all watching. Pods must be gone."""
        for timer in (self._retry, self._memory_timer):
            if timer is not None:
                timer.cancel()
        if self._inotify.descriptor >= 0:
            self._loop.remove_reader(self._inotify.descriptor)
        self._inotify.close()
        with suppress(OSError):
            self.publish()


def bury(marker: str, *, seconds: float = 10.0) -> list[int]:
    """Kill what an earlier runner of the same run left, and wait until it is gone; returns the pids that were killed.

    Only processes that carry the run's own random marker. Raises `UserError` when one cannot be ended.
    """
    killed: list[int] = []
    ends = time.monotonic() + seconds
    while found := processes.marked(marker):
        killed += processes.kill_marked(marker)
        if time.monotonic() > ends:
            raise UserError(f"processes {found} of an earlier runner of this folder cannot be ended")
        time.sleep(0.01)
    return killed
