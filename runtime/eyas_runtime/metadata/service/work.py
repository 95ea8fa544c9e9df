"""Training time that counts and training time spent again, since this service started. Pure: callers hand in `now`
(monotonic seconds).

A step's time is what its ranks said that it took. The first ack of a window is work that counts; an ack of a window
that any start of the ranks had reached before is work done again, because they went back to a checkpoint.
"""

import math
from typing import Final

SECONDS_MAX: Final = 86_400.0
"""A step that says it took longer is not believed."""


class Work:
    """Counters of one service's life; a successor begins at zero, as counters of a process do."""

    def __init__(self, *, reached_step: int = 0, acked_step: int = 0, began: float | None = None) -> None:
        """`reached_step`: the highest window ever acked; `acked_step`: by the present ranks; `began`: they are there
        since then, None while none are."""
        self._reached = reached_step
        self._acked = acked_step
        self._began = began
        self._last: float | None = None
        """When the last window was acked."""
        self._seconds = 0.0
        self.lost_seconds = 0.0

    def gang_opened(self, *, checkpoint_step: int, now: float) -> None:
        """Ranks start from `checkpoint_step`."""
        self._began = now if self._began is None else self._began
        self._acked = checkpoint_step
        self._reached = max(self._reached, checkpoint_step)

    def stepped(self, step: int, step_seconds: float | None, *, now: float) -> None:
        """Window `step` was acked; `step_seconds` is what it took, when known. A repeated ack is no second work."""
        if step <= self._acked:
            return
        again, self._acked, self._reached = step <= self._reached, step, max(self._reached, step)
        self._began = now if self._began is None else self._began
        self._last = now
        if step_seconds is None or not math.isfinite(step_seconds) or not 0.0 < step_seconds < SECONDS_MAX:
            return
        if again:
            self.lost_seconds += step_seconds
        else:
            self._seconds += step_seconds

    def goodput(self, *, now: float, complete: bool = False) -> float | None:
        """Share of the time since the first ranks in which windows were trained for the first time, 0 to 1.

        None before there were ranks. The time of a `complete` job ended with its last step.
        """
        end = self._last if complete else now
        if self._began is None or end is None or end <= self._began:
            return None
        return min(1.0, self._seconds / (end - self._began))
