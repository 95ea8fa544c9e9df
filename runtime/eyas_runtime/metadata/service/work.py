"""Work that counts and work that was lost, since this service started. Pure: callers hand in `now` (monotonic seconds).

A step's work is what its ranks said that it took; a start of the ranks below the last step loses the steps between.
"""

import math

SECONDS_MAX = 86_400.0
"""A step that says it took longer is not believed."""


class Work:
    """Counters of one service's life; a successor begins at zero, as counters of a process do."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._seconds = 0.0
        self._steps = 0
        self.lost_seconds = 0.0
        self.replayed_steps = 0

    def gang_opened(self, *, trained_step: int, checkpoint_step: int, now: float) -> None:
        """Ranks start from `checkpoint_step` although `trained_step` had been reached."""
        self._began = now if self._began is None else self._began
        lost = max(0, trained_step - checkpoint_step)
        self.replayed_steps += lost
        if self._steps:
            self.lost_seconds += lost * self._seconds / self._steps

    def stepped(self, step_seconds: float | None, *, now: float) -> None:
        """A step was acked; `step_seconds` is what it took, when known."""
        self._began = now if self._began is None else self._began
        if step_seconds is not None and math.isfinite(step_seconds) and 0.0 < step_seconds < SECONDS_MAX:
            self._seconds += step_seconds
            self._steps += 1

    def goodput(self, *, now: float) -> float:
        """Share of the time since the first gang in which steps were trained that still count, 0 to 1."""
        if self._began is None or now <= self._began:
            return 0.0
        return min(1.0, max(0.0, self._seconds - self.lost_seconds) / (now - self._began))
