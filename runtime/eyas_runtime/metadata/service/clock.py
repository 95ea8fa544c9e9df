"""The two clocks of the service: one to measure with, one to write down.

Terms and deadlines are compared by the monotonic clock only; wall-clock seconds are recorded and never compared.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What tells the time; tests hand in one that they move themselves."""

    def monotonic(self) -> float:
        """Seconds since some fixed instant; never jumps."""
        ...

    def wall(self) -> float:
        """Unix seconds, to be recorded."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
