"""Whether the kernel killed a process of this container for memory, by the counter of its own control group.

The runtime says `OOMKilled` of a container, but some tell of the end first and of the reason later or never, and it
says nothing at all of a process that is started again inside. Control groups of version 2 only; where there is no
counter (another version, or the root group of a machine), nobody was killed as far as we can tell.

Source: Linux kernel documentation, admin-guide/cgroup-v2, `memory.events`, key `oom_kill`.
"""

from pathlib import Path
from typing import Final

EVENTS: Final = Path("/sys/fs/cgroup/memory.events")


class MemoryKills:
    """The counter, and what it was when we last looked."""

    def __init__(self, events: Path = EVENTS) -> None:
        self._events = events
        self._count = self._read()

    def more(self) -> bool:
        """Whether a process was killed since the last look."""
        before, self._count = self._count, self._read()
        return self._count > before

    def _read(self) -> int:
        try:
            lines = self._events.read_text(encoding="ascii").splitlines()
            return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
        except (OSError, ValueError, IndexError):
            return 0
