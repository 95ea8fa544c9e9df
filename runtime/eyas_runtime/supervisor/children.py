"""The processes of one life: started with who they are in their environment, listed in `children.json`.

The list is replaced atomically at every change, so that anybody who reads it sees whole lives. The restart number is
written before the first process of a life exists: it fences a producer's predecessors and must never repeat, also
when the supervisor itself was killed in between.
"""

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from eyas_contract import env
from eyas_contract.errors import UserError
from eyas_contract.wire import Child, Termination, decode
from eyas_runtime import files
from eyas_runtime.process import TERMINATION_BYTES_MAX
from eyas_runtime.supervisor.child_stderr import ChildStderr
from eyas_runtime.supervisor.native_words import native_words
from eyas_runtime.supervisor.redaction import known_secrets
from eyas_runtime.supervisor.settings import Settings
from eyas_runtime.supervisor.spares import Spares

RESTARTS_FILE: Final = "restarts"
_RESTARTS_BYTES_MAX: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """One process that we started and have not reaped."""

    slot: int
    pid: int
    process: str
    restart: int
    since: float
    """Monotonic seconds."""


class Children:
    """Starts and lists the processes of this pod. Used from one thread only."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], stderr: ChildStderr) -> None:
        self._settings = settings
        self._environ = dict(environ)
        self._folder = settings.pod_directory
        self._folder.mkdir(parents=True, exist_ok=True)
        self._stderr = stderr
        self._spares = Spares(settings, environ, stderr)
        self.live: dict[int, Started] = {}
        """By pid."""

    def start_life(self) -> None:
        """Start every child. Raises `UserError` when the command cannot be executed."""
        restart = self._next_restart()
        for slot in range(self._settings.processes):
            self._remove(self._termination_file(slot))
        for slot in range(self._settings.processes):
            started = self._start(slot, restart)
            self.live[started.pid] = started
        self._write_list()

    @property
    def ready(self) -> bool:
        """The role says that it can make progress."""
        return (self._folder / env.READY_FILE).exists()

    @property
    def spares_missing(self) -> bool:
        """The pod is ready and has fewer processes in waiting than it could have."""
        return self._spares.missing and self.ready

    @property
    def spare_pids(self) -> set[int]:
        """Processes in waiting: ours, but of no life."""
        return set(self._spares.pids.values())

    def fill_spares(self) -> None:
        """Start processes in waiting for the next life."""
        self._spares.fill(self._slot_environment)
        self._write_list()

    def spares_reaped(self, pids: set[int]) -> None:
        """Forget processes in waiting that ended."""
        if pids & self.spare_pids:
            self._spares.reaped(pids)
            self._write_list()

    def leave(self) -> None:
        """Nothing will be started any more."""
        self._spares.dismiss()

    def ended(self, pids: Sequence[int]) -> list[Started]:
        """Forget children that were reaped; returns them in the same order."""
        gone = [self.live.pop(pid) for pid in pids]
        if gone:
            self._write_list()
        return gone

    def life_over(self) -> None:
        """Nobody is left: this pod is not ready."""
        self._remove(self._folder / env.READY_FILE)

    def termination(self, slot: int) -> Termination | None:
        """What the child of `slot` wrote about its own end, if it did."""
        try:
            raw = self._termination_file(slot).read_bytes()[: TERMINATION_BYTES_MAX + 1]
            return decode(raw, Termination, bytes_max=TERMINATION_BYTES_MAX)
        except (OSError, UserError):
            return None

    def stderr_words(self, pid: int) -> str:
        """What a child that was reaped told of its end on stderr, fit to be shown. To be asked once for each."""
        return native_words(self._stderr.take(pid), known_secrets(self._environ))

    def _start(self, slot: int, restart: int) -> Started:
        process = secrets.token_hex(16)
        values = {env.RESTART: str(restart), env.PROCESS: process}
        pid = self._spares.take(slot, values)
        if pid is None:
            pid = self._start_cold(self._slot_environment(slot) | values)
        return Started(slot=slot, pid=pid, process=process, restart=restart, since=time.monotonic())

    def _start_cold(self, environment: dict[str, str]) -> int:
        command = self._settings.command
        try:
            return self._stderr.launch(command, environment)
        except (FileNotFoundError, PermissionError) as error:
            raise UserError(f"cannot start {command[0]}: {error.strerror}") from error

    def _slot_environment(self, slot: int) -> dict[str, str]:
        """What is the same in every life."""
        values = self._environ | {
            env.PARENT_PID: str(os.getpid()),
            env.ROLE: self._settings.role,
            env.TERMINATION_LOG: str(self._termination_file(slot)),
        }
        gang = self._settings.gang
        if gang is not None:
            values |= {
                env.RANK: str(gang.first_rank + slot),
                env.LOCAL_RANK: str(slot),
                env.WORLD_SIZE: str(gang.world_size),
            }
        return values

    def _next_restart(self) -> int:
        path = self._folder / RESTARTS_FILE
        try:
            text = path.read_bytes()[:_RESTARTS_BYTES_MAX].decode("ascii", "replace")
            number = int(text) + 1 if text.isdecimal() else 0
        except FileNotFoundError:
            number = 0
        files.publish_bytes(path, str(number).encode())
        return number

    def _remove(self, path: Path) -> None:
        with files.directory(self._folder) as descriptor:
            files.remove_at(descriptor, path.name)

    def _termination_file(self, slot: int) -> Path:
        return self._folder / f"termination-{slot}.json"

    def _write_list(self) -> None:
        first = self._settings.gang.first_rank if self._settings.gang else self._settings.index
        role = self._settings.role
        listed = [
            Child(
                role=role,
                index=first + started.slot,
                pid=started.pid,
                restart=started.restart,
                process=started.process,
            )
            for started in sorted(self.live.values(), key=lambda child: child.slot)
        ]
        listed += [
            Child(role=f"{role}-spare", index=first + slot, pid=pid, restart=0, process="")
            for slot, pid in sorted(self._spares.pids.items())
        ]
        files.publish_bytes(self._folder / env.CHILDREN_FILE, msgspec.json.encode(listed))
