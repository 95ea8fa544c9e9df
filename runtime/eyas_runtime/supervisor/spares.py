"""Keeps one process in waiting per child, so that a restart costs no imports (seconds for a trainer).

A spare is started once the pod is ready, because before that it would only compete with its own pod for the processors.
It is no child yet: it belongs to no life, does nothing but import, and its death means only a slower next start.
There are none while failpoints are armed: a process in waiting would carry the arming of an earlier life.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from eyas_contract import env
from eyas_runtime.supervisor.child_stderr import ChildStderr
from eyas_runtime.supervisor.settings import Settings
from eyas_runtime.supervisor.spare import HEAVY

SETTLE_SECONDS: Final = 3.0
"""Between readiness and the start of spares: the first steps of a job are the dearest."""
FAILPOINTS: Final = "EYAS_FAILPOINTS"
_REAL_TRAINER: Final = "eagle3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """One process in waiting."""

    pid: int
    pipe: int


class Spares:
    """The spares of one pod, by slot. Used from the supervisor's thread only."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], stderr: ChildStderr) -> None:
        self._stderr = stderr
        self._command = _spare_command(settings.command, environ)
        self._slots = range(settings.processes)
        self._waiting: dict[int, Spare] = {}

    @property
    def missing(self) -> bool:
        """There could be more than there are."""
        return self._command is not None and len(self._waiting) < len(self._slots)

    @property
    def pids(self) -> dict[int, int]:
        """Pid of each slot's spare."""
        return {slot: spare.pid for slot, spare in self._waiting.items()}

    def fill(self, environment: Callable[[int], dict[str, str]]) -> None:
        """Start what is missing, each with the environment of its slot."""
        if self._command is None:
            return
        for slot in self._slots:
            if slot not in self._waiting:
                self._waiting[slot] = self._start(self._command, environment(slot))

    def take(self, slot: int, values: Mapping[str, str]) -> int | None:
        """Turn the slot's spare into a child with these variables; its pid, or None when there is none to take."""
        spare = self._waiting.pop(slot, None)
        if spare is None:
            return None
        try:
            os.write(spare.pipe, json.dumps(dict(values)).encode() + b"\n")
        except BrokenPipeError:
            return None
        finally:
            os.close(spare.pipe)
        return spare.pid

    def reaped(self, pids: set[int]) -> None:
        """Forget spares that ended."""
        for slot, spare in list(self._waiting.items()):
            if spare.pid in pids:
                os.close(self._waiting.pop(slot).pipe)
                self._stderr.take(spare.pid)

    def dismiss(self) -> None:
        """Let all of them end."""
        for spare in self._waiting.values():
            with suppress(OSError):
                os.close(spare.pipe)
        self._waiting.clear()

    def _start(self, command: list[str], environment: dict[str, str]) -> Spare:
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            pid = self._stderr.launch(command, environment, stdin=read)
        except BaseException:
            os.close(write)
            raise
        finally:
            os.close(read)
        return Spare(pid=pid, pipe=write)


def _spare_command(command: tuple[str, ...], environ: Mapping[str, str]) -> list[str] | None:
    """Command of a spare for a child that is started by `command`; None where spares are not worth it."""
    if len(command) != 3 or command[1] != "-m" or command[2] not in HEAVY:
        return None
    if environ.get(FAILPOINTS) or environ.get(env.TRAINER, _REAL_TRAINER) != _REAL_TRAINER:
        return None
    return [command[0], "-m", "eyas_runtime.supervisor.spare", command[2]]
