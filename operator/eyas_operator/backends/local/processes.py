"""Processes of this machine as /proc shows them, and how they are ended without hitting a stranger.

A pid may be given to another program between reading and killing: every kill here goes through a pidfd that was
opened before the process was identified. Reading is best effort: what is gone or not ours to see is left out.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

RUN_MARKER: Final = "EYAS_LOCAL_RUN"
"""Environment variable with the run's own random name: every process of a run carries it."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_STATE, _PARENT, _SESSION, _START, _RSS = 0, 1, 3, 19, 21
"""Places in /proc/PID/stat after the command's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One live process."""

    pid: int
    parent: int
    session: int
    start: int
    """Clock ticks since boot: with the pid, a name that is never used twice."""
    resident_bytes: int
    zombie: bool


def all_pids() -> Iterator[int]:
    """Every process there is."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            yield int(name)


def look(pid: int) -> Process | None:
    """The process `pid`; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if len(fields) <= _RSS:
        return None
    return Process(
        pid=pid,
        parent=int(fields[_PARENT]),
        session=int(fields[_SESSION]),
        start=int(fields[_START]),
        resident_bytes=int(fields[_RSS]) * _PAGE_BYTES,
        zombie=fields[_STATE] in (b"Z", b"X"),
    )


def members(session: int) -> list[Process]:
    """Live processes of a session: of one pod, because each is started as the leader of its own."""
    found = (look(pid) for pid in all_pids())
    return [process for process in found if process and process.session == session and not process.zombie]


def proportional_bytes(pid: int) -> int | None:
    """Memory of `pid` with shared pages divided among their users; None when it cannot be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


def name_of(pid: int) -> str:
    """The command's short name, or `?`."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"


def descriptors(pid: int) -> Iterator[str]:
    """What the open descriptors of `pid` point at."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        with suppress(OSError):
            yield os.readlink(f"/proc/{pid}/fd/{name}")


def kill_session(session: int) -> int:
    """SIGKILL every process of a session of ours until none is left to see; returns how many there were."""
    count = 0
    for process in members(session):
        count += _kill_if(process.pid, lambda pid: (now := look(pid)) is not None and now.session == session)
    return count


def kill_marked(marker: str) -> list[int]:
    """SIGKILL every process, but this one, that carries the run's marker in its environment; returns their pids."""
    return [pid for pid in marked(marker) if _kill_if(pid, lambda it: _carries(it, marker))]


def marked(marker: str) -> list[int]:
    """Pids of live processes, but this one, that carry the run's marker."""
    return [pid for pid in all_pids() if pid != os.getpid() and _carries(pid, marker)]


def _carries(pid: int, marker: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{RUN_MARKER}={marker}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def _kill_if(pid: int, is_ours: Callable[[int], bool]) -> bool:
    """Kill `pid` if it is still the one that was meant when nobody else can get its number any more."""
    descriptor = open_pidfd(pid)
    if descriptor is None:
        return False
    try:
        return is_ours(pid) and send(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def open_pidfd(pid: int) -> int | None:
    """A descriptor of the process, readable when it ends; None when it is gone."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def send(pidfd: int, number: signal.Signals) -> bool:
    """Send a signal; False when the process is gone."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True
