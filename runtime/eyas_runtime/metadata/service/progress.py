"""How fast the job advances, by its own counters and the monotonic clock. Pure: callers hand in `now`.

An advance is a step acked or made durable. Going back at a reconcile is not an advance, training on from there is.
"""

from collections import deque
from typing import Final

RATE_SECONDS: Final = 60.0
"""Steps per second are an average over the last minute."""
_ACKS_MAX: Final = 4096


class Progress:
    """When the job last advanced and how fast it does."""

    def __init__(self, *, now: float) -> None:
        self._advanced_at = now
        self._acked = 0
        self._durable = 0
        self._acks: deque[float] = deque(maxlen=_ACKS_MAX)

    def restarted(self, acked_step: int, durable_step: int) -> None:
        """A gang was opened or closed: compare with these steps from here on."""
        if acked_step < self._acked:
            self._acks.clear()
        self._acked, self._durable = acked_step, durable_step

    def at(self, acked_step: int, durable_step: int, *, now: float) -> None:
        """The steps as they stand after a call."""
        if acked_step > self._acked:
            self._acks.extend([now] * min(acked_step - self._acked, _ACKS_MAX))
        if acked_step > self._acked or durable_step > self._durable:
            self._advanced_at = now
        self._acked, self._durable = acked_step, durable_step

    def seconds_since_advance(self, *, now: float) -> float:
        """Seconds since the last advance, or since the start of this service."""
        return max(0.0, now - self._advanced_at)

    def steps_per_second(self, *, now: float) -> float:
        """Average over the acks of the last minute; 0 when there were fewer than two."""
        while self._acks and now - self._acks[0] > RATE_SECONDS:
            self._acks.popleft()
        if len(self._acks) < 2 or now <= self._acks[0]:
            return 0.0
        return (len(self._acks) - 1) / (now - self._acks[0])
