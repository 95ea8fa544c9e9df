"""Descendants whose own parent died: they become ours, are reaped, and never outlive the life they belong to.

A dead rank's helper that still holds a port or a GPU would make the next life fail.
"""

import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final

POLLS_MAX: Final = 50
POLL_SECONDS: Final = 0.01


def reap_all() -> list[tuple[int, int]]:
    """Every process that ended and was ours or adopted, as (pid, exit code or -signal). Never blocks."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))


def bury_orphans(live: Collection[int]) -> None:
    """Kill and reap what a life left behind, but for `live`, until nothing is left or half a second is over."""
    for _ in range(POLLS_MAX):
        if not kill_orphans(live):
            return
        time.sleep(POLL_SECONDS)
        reap_all()


def kill_orphans(live: Collection[int]) -> int:
    """SIGKILL every child process of ours that is not in `live`; returns how many were there.

    Safe by pid: only we reap our children, so their numbers cannot have been given to somebody else.
    """
    own = str(os.getpid())
    count = 0
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) in live:
            continue
        if _parent(name) == own:
            count += 1
            with suppress(ProcessLookupError):
                os.kill(int(name), signal.SIGKILL)
    return count


def _parent(pid: str) -> str:
    """Parent pid of a live process, empty for zombies and for processes that are gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return ""
    return "" if state == "Z" else parent
