"""Freed memory goes back to the system before its holes add up.

glibc keeps what was freed. Buffers of ever new sizes (samples of unequal lengths) leave holes in it that nothing fits
into: a rank of the quickstart grows by 25 MB a window of four samples, and returns all of it when asked, in 0.08 s.
Having the kernel take every large buffer back at once (`MALLOC_MMAP_THRESHOLD_`) makes the same step 30 % slower.
"""

import ctypes
import platform
import resource
from pathlib import Path
from typing import Final

GROWTH_BYTES: Final = 256 << 20
"""So much more than after the last time is worth the trouble."""
_STATM: Final = Path("/proc/self/statm")


class FreedMemory:
    """Of this process. Does nothing under another C library than glibc."""

    def __init__(self, growth_bytes: int = GROWTH_BYTES) -> None:
        self._growth_bytes = growth_bytes
        self._glibc = platform.libc_ver()[0] == "glibc"
        self._floor: int | None = None

    def give_back(self) -> None:
        """Return what was freed, if the process has grown since the last time; for between two pieces of work."""
        if not self._glibc:
            return
        if self._floor is None or resident_bytes() - self._floor > self._growth_bytes:
            ctypes.CDLL(None).malloc_trim(0)
            self._floor = resident_bytes()


def resident_bytes() -> int:
    """Memory that this process has in pages of its own or shared, bytes (Linux)."""
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()
