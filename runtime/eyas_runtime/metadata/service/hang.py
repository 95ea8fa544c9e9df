"""The hang lease of the consumer gang: silence of work is a failure like any other. Pure: callers hand in `now`.

It is renewed while the counters of work of EVERY rank move, by an ack (a step is a collective of all ranks), or while
nothing is due. Three terms apply: until the first step of an incarnation the start-up deadline; after it
max(floor, 10 x median step); and for a checkpoint that was ordered and is not committed its own deadline, whether
there is data or not. A service that did not run for a while starts all of them anew, and of an incarnation that it
finds in its file when it starts it must have heard before it may call it hung: the pods may have died with ours.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Final

from eyas_contract.errors import UserError
from eyas_runtime.metadata.service.leases import TICK_GAP_SECONDS

STEPS_REMEMBERED: Final = 64
MEDIAN_FACTOR: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the store says at a tick."""

    incarnation: str
    world_size: int
    stepped: bool
    """A step of this incarnation was acked."""
    due: bool
    """The gang has a window to train, or could be given an order now."""
    checkpoint_step: int
    """Step of the checkpoint that is ordered and not committed; 0 when none."""


class HangLease:
    """The one hang lease of a job; it follows the newest incarnation by itself. All arguments are seconds."""

    def __init__(self, *, floor_seconds: float, startup_seconds: float, checkpoint_seconds: float) -> None:
        self._floor = floor_seconds
        self._startup = startup_seconds
        self._checkpoint = checkpoint_seconds
        self._durations: deque[float] = deque(maxlen=STEPS_REMEMBERED)
        self._incarnation = ""
        self._counters: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._renewed_at = 0.0
        self._stepped = False
        self._checkpoint_step = 0
        self._checkpoint_since = 0.0
        self._last_tick: float | None = None
        self._unheard = ""

    def adopt(self, incarnation: str) -> None:
        """The incarnation that was open when this service started: nobody of it was heard yet."""
        self._unheard = incarnation

    def heard(self, incarnation: str) -> None:
        """A rank of it, or the supervisor of one, lives."""
        if incarnation == self._unheard:
            self._unheard = ""

    def beat(self, incarnation: str, rank: int, counter: int, *, now: float) -> None:
        """Note a rank's counter of work. Raises `UserError` for a rank that cannot exist."""
        if not 0 <= rank < 1 << 20:
            raise UserError(f"rank {rank} is not a rank")
        self.heard(incarnation)
        self._follow(incarnation, now)
        self._counters[rank] = max(counter, self._counters.get(rank, counter))

    def acked(self, incarnation: str, step_seconds: float | None, *, now: float) -> None:
        """A step is in the weights of every rank; `step_seconds` is what it took, when known."""
        self.heard(incarnation)
        self._follow(incarnation, now)
        self._stepped = True
        self._renewed_at = now
        self.remember(step_seconds)

    def remember(self, step_seconds: float | None) -> None:
        """Count a step's duration towards the median; None or nonsense is skipped."""
        if step_seconds is not None and math.isfinite(step_seconds) and step_seconds > 0.0:
            self._durations.append(step_seconds)

    def term_seconds(self, *, stepped: bool) -> float:
        """How long the counters may stand still."""
        if not stepped:
            return self._startup
        median = statistics.median(self._durations) if self._durations else 0.0
        return max(self._floor, MEDIAN_FACTOR * median)

    def tick(self, situation: Situation, *, now: float) -> str | None:
        """Why the incarnation hangs, in words, or None."""
        gap = 0.0 if self._last_tick is None else now - self._last_tick
        self._last_tick = now
        self._follow(situation.incarnation, now)
        if situation.checkpoint_step != self._checkpoint_step:
            self._checkpoint_step, self._checkpoint_since = situation.checkpoint_step, now
        if gap > TICK_GAP_SECONDS or situation.incarnation == self._unheard:
            self._renewed_at = self._checkpoint_since = now
        self._renew(situation, now)
        if self._checkpoint_step and now - self._checkpoint_since > self._checkpoint:
            return f"the checkpoint at step {self._checkpoint_step} was not committed within {self._checkpoint:g} s"
        term = self.term_seconds(stepped=situation.stepped)
        if now - self._renewed_at <= term:
            return None
        if not situation.stepped:
            return f"no first step within {term:g} s"
        still = [rank for rank in range(situation.world_size) if not self._moved(rank)]
        return f"no work of rank {', '.join(map(str, still[:8]))} for {term:g} s"

    def _follow(self, incarnation: str, now: float) -> None:
        if incarnation == self._incarnation:
            return
        self._incarnation = incarnation
        self._counters, self._seen = {}, {}
        self._stepped = False
        self._renewed_at = self._checkpoint_since = now
        self._checkpoint_step = 0

    def _moved(self, rank: int) -> bool:
        return self._counters.get(rank, -1) > self._seen.get(rank, -1)

    def _renew(self, situation: Situation, now: float) -> None:
        if situation.stepped and not self._stepped:
            self._stepped, self._renewed_at = True, now
        if not situation.due:
            self._renewed_at = now
        elif situation.stepped and all(self._moved(rank) for rank in range(situation.world_size)):
            self._seen = dict(self._counters)
            self._renewed_at = now
