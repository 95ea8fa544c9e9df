"""Notice changes of files at once, by the kernel's inotify: readiness, lists of children, lost claims.

Only a hint to look: whatever is decided is decided from the files themselves, and a timer looks too.
"""

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_MASK: Final = 0x00000080 | 0x00000100 | 0x00000200 | 0x00000040 | 0x00000008
"""IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_CLOSE_WRITE."""
_READ_BYTES: Final = 1 << 16


class Inotify:
    """One inotify descriptor; `descriptor` is readable when something changed, and -1 if the kernel has none left."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)

    def watch(self, folder: Path) -> None:
        """Watch the names in `folder`; one that is gone is no error (watches end with their folders)."""
        if self.descriptor >= 0:
            self._libc.inotify_add_watch(self.descriptor, os.fsencode(folder), ctypes.c_uint32(_MASK))

    def clear(self) -> None:
        """Forget what was reported so far."""
        with suppress(BlockingIOError):
            while os.read(self.descriptor, _READ_BYTES):
                pass

    def close(self) -> None:
        """End all watches."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
