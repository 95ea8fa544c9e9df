"""Names of temporary files: who wrote one, and whether that writer can still be alive.

A writer that dies between creating its temporary file and renaming it leaves the file for ever. Its name therefore says
host, boot, PID namespace, process id and start time of the writer, and any later process of the same host can prove
the writer dead. A file of another host cannot be judged that way; it goes when it is older than any write may take.
"""

import functools
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PREFIX: Final = ".eyas-tmp."
FOREIGN_AFTER_SECONDS: Final = 3600.0
"""Age after which a temporary file of another host is removed: far beyond every deadline of a single write.

A writer that was paused even longer finds its file gone, fails to rename it, and writes again."""

_NAME: Final = re.compile(
    r"\.eyas-tmp\.(?P<host>[0-9a-f]{16})\.(?P<boot>[0-9a-f]{16})\.(?P<namespace>[0-9]+)"
    r"\.(?P<pid>[0-9]+)\.(?P<start>[0-9]+)\.[0-9a-f]{16}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterIdentity:
    """Which process on which boot of which host; two live processes never share one."""

    host: str
    """Hash of the host name, 16 hex digits."""
    boot: str
    """Hash of the kernel's boot id, 16 hex digits."""
    namespace: int
    """Inode of the PID namespace: process ids mean nothing outside it."""
    pid: int
    start_ticks: int
    """Start time of the process in clock ticks since boot: tells a reused process id."""


def own_identity() -> WriterIdentity:
    """Of the calling process (computed anew after a fork)."""
    return _identity_of(os.getpid())


@functools.lru_cache(maxsize=8)
def _identity_of(pid: int) -> WriterIdentity:
    start = start_ticks_of(pid)
    if start is None:
        raise ProcessLookupError(f"process {pid} is gone")
    return WriterIdentity(
        host=_hash(socket.gethostname()),
        boot=_hash(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()),
        namespace=os.stat("/proc/self/ns/pid").st_ino,
        pid=pid,
        start_ticks=start,
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def start_ticks_of(pid: int) -> int | None:
    """Start time of process `pid` in clock ticks since boot; None if there is none (a zombie counts as none)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name, in parentheses, may hold spaces and parentheses itself: fields are counted after the last one.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def name_for(writer: WriterIdentity) -> str:
    """A fresh temporary name of `writer`."""
    parts = (writer.host, writer.boot, str(writer.namespace), str(writer.pid), str(writer.start_ticks))
    return f"{PREFIX}{'.'.join(parts)}.{secrets.token_hex(8)}"


def writer_of(name: str) -> WriterIdentity | None:
    """Who wrote the temporary file `name`; None if the name is not one of `name_for`."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return WriterIdentity(
        host=match["host"],
        boot=match["boot"],
        namespace=int(match["namespace"]),
        pid=int(match["pid"]),
        start_ticks=int(match["start"]),
    )


def is_abandoned(
    writer: WriterIdentity,
    me: WriterIdentity,
    *,
    age_seconds: float,
    foreign_after_seconds: float,
    start_of: Callable[[int], int | None],
) -> bool:
    """Whether a temporary file of `writer`, `age_seconds` old, will never be finished.

    Same host, boot and PID namespace: decided by the process table (`start_of`). Anything else, another container on
    the same node included, only by age: its process ids cannot be seen from here.
    """
    if (writer.host, writer.boot, writer.namespace) == (me.host, me.boot, me.namespace):
        return start_of(writer.pid) != writer.start_ticks
    if writer.host == me.host and writer.boot != me.boot:
        return True
    return age_seconds > foreign_after_seconds


def sweep(dir_fd: int, *, foreign_after_seconds: float = FOREIGN_AFTER_SECONDS) -> int:
    """Remove the temporary files of dead writers in the directory `dir_fd`; returns how many."""
    me = own_identity()
    removed = 0
    with os.scandir(dir_fd) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(PREFIX)]
    for name in names:
        writer = writer_of(name)
        if writer is None:
            continue
        try:
            age = time.time() - os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mtime
            dead = is_abandoned(
                writer, me, age_seconds=age, foreign_after_seconds=foreign_after_seconds, start_of=start_ticks_of
            )
            if dead:
                os.unlink(name, dir_fd=dir_fd)
                removed += 1
        except FileNotFoundError:
            continue
    return removed
