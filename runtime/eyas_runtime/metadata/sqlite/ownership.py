"""Who owns the database file: an flock beside it, and the identity of the file that was opened.

A third file says that the database was made. SQLite takes an empty file for a new database; with the mark beside it,
it is one that lost its content, and nobody may begin again with nothing under the same store epoch.
"""

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from eyas_contract.errors import Bug, Transient, UserError

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def identity(path: Path) -> tuple[int, int]:
    """Device and inode: what a path names now. Raises `FileNotFoundError`."""
    status = path.stat()
    return status.st_dev, status.st_ino


def take_lock(path: Path) -> int:
    """Own the database by an flock, which the kernel gives back however we die; returns the descriptor to keep open.

    Raises `Transient` while another process owns it, `UserError` when the folder is not there or not writable.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(f"{path} cannot be made: the metadata folder must exist and be writable ({error})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, 200, 0).decode("ascii", "replace").strip() or "another process"
        os.close(descriptor)
        raise Transient(
            f"{path.with_suffix('')} is owned by {owner}: a job has exactly one metadata service",
            retry_after_seconds=1.0,
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()}".encode("ascii"), 0)
    return descriptor


def was_made(path: Path) -> bool:
    """Whether a database was once made at `path` and is durable."""
    return _mark(path).exists()


def lost_its_content(path: Path) -> bool:
    """Whether the database that was made at `path` is gone or has no byte left. Asked before SQLite opens it."""
    return was_made(path) and (not path.exists() or not path.stat().st_size)


def mark_made(path: Path) -> None:
    """Remember for ever, power loss included, that `path` holds a database. Raises `Transient` on a full volume."""
    if was_made(path):
        return
    try:
        os.close(os.open(_mark(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise Transient(f"no room to write {_mark(path)}: the volume is full") from error
        raise Bug(f"{_mark(path)}: {error}; the process must start again") from error


def _mark(path: Path) -> Path:
    return path.with_name(path.name + ".made")
