"""Who owns the database file: an flock beside it, and the identity of the file that was opened."""

import fcntl
import os
from pathlib import Path

from eyas_contract.errors import Transient, UserError


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
