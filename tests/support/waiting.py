"""Bounded waiting for facts about processes and files: no fixed sleep, and a sentence when it takes too long."""

import os
import select
import signal
import time
from collections.abc import Callable
from typing import Final, TypeVar

DEADLINE_SECONDS: Final = 60.0
"""Far more than anything here takes, so that a loaded machine never decides a test."""
POLL_SECONDS: Final = 0.005

T = TypeVar("T")


def wait_until(
    fact: Callable[[], T | None],
    what: str | Callable[[], str],
    *,
    seconds: float = DEADLINE_SECONDS,
    poll_seconds: float = POLL_SECONDS,
) -> T:
    """The first truthy value of `fact`; fails naming `what` (asked for only then, when it is a function)."""
    ends = time.monotonic() + seconds
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > ends:
            raise AssertionError(f"not within {seconds:g} s: {what() if callable(what) else what}")
        select.select([], [], [], poll_seconds)


def alive(pid: int) -> bool:
    """Whether `pid` is a process that runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def wait_dead(pid: int, what: str = "") -> None:
    """Wait until `pid` is gone or a zombie."""
    wait_until(lambda: not alive(pid), f"the end of process {pid} {what}")


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that the test started."""
    os.kill(pid, number)
