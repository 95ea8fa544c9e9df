"""One runner owns the folder of a run: a second one would start the same pods on the same addresses.

The lock is the kernel's (`flock`): it ends with its holder, however that dies, and is not inherited by children.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eyas_contract.errors import Transient


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Hold the lock file. Raises `Transient` naming the other runner's process when there is one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise Transient(f"{path.parent} is in use by another runner, process {holder}") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
