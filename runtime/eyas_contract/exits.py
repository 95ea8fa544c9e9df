"""Exit codes of every Eyas process: the operator decides from them, never from log text.

The table is `docs/exit-codes.md`; 65, 75 and 78 are `EX_DATAERR`, `EX_TEMPFAIL` and `EX_CONFIG` of BSD's sysexits(3).
"""

import signal
from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """Exit codes that carry a meaning beyond "crashed"."""

    DONE = 0
    """The role's work is complete."""
    CRASH = 1
    """An unexpected error; counts against the budget."""
    DAMAGED = 65
    """The metadata database is damaged: no restart helps, the next store epoch begins; does not count."""
    TEMPORARY = 75
    """Asked to be restarted (drained after a checkpoint, or I/O that may heal); does not count."""
    CONFIG = 78
    """The job cannot work as specified; never retried."""
    FENCED = 86
    """A newer attempt owns the job; this process must not come back."""


FINAL: Final = frozenset({Exit.DONE, Exit.DAMAGED, Exit.TEMPORARY, Exit.CONFIG, Exit.FENCED})
"""Codes with which a supervisor leaves its pod instead of restarting the child in place."""


def describe(code: int) -> str:
    """How a process ended, for people; negative: by that signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
