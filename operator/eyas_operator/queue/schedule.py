"""When each job is looked at next: a keyed queue without a clock, a task or a lock. Pure but for its own state.

Rules. A key is due at one time at most: waking it again only ever brings that time forward. A key that is being worked
on is never handed out a second time; what is asked of it meanwhile comes due as soon as that pass is over. Keys are
handed out in the order in which they came due, so one busy job never holds up another; but what was asked for at once
(something has happened) has a head start before what time alone brings (a look, just in case): behind the looks at 500
jobs a death would wait for seconds. The head start is bounded, so that no storm of events holds up the looks for ever.
After a failed pass a floor holds that no wake-up passes: a pass that fails after it wrote something would else wake
itself without a pause.
"""

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

BACKOFF_BASE_SECONDS: Final = 0.5
BACKOFF_MAX_SECONDS: Final = 30.0
HEAD_START_SECONDS: Final = 10.0
"""What time alone brings waits so long for what was asked for."""

K = TypeVar("K", bound=Hashable)
_Item = tuple[float, int, K]
"""When it is due, its ticket, the key."""


def backoff_seconds(failures: int, first_seconds: float = BACKOFF_BASE_SECONDS) -> float:
    """Pause after the `failures`-th failure in a row: `first_seconds`, then at least 0.5 s doubled up to 30 s."""
    if failures <= 1:
        return min(first_seconds, BACKOFF_MAX_SECONDS)
    doubled = BACKOFF_BASE_SECONDS * 2.0 ** min(failures - 2, 16)
    return min(max(first_seconds, doubled), BACKOFF_MAX_SECONDS)


@dataclass(slots=True)
class _Entry:
    due: float | None = None
    """When to look; None: nobody asked."""
    asked: bool = False
    """It was asked for at once."""
    ticket: int = 0
    """Of the one heap item that is valid; a busy key has none."""
    busy: bool = False
    failures: int = 0
    floor: float = 0.0
    """Not before this time, whoever asks."""


class Schedule(Generic[K]):
    """All keys that somebody asked for. Times are seconds of one clock that never goes back."""

    def __init__(self) -> None:
        self._entries: dict[K, _Entry] = {}
        self._asked: list[_Item[K]] = []
        self._timed: list[_Item[K]] = []
        self._tickets = 0

    def wake(self, key: K, now: float, delay_seconds: float = 0.0) -> None:
        """Look at `key` after `delay_seconds` at the latest."""
        entry = self._entries.setdefault(key, _Entry())
        due = max(now + max(delay_seconds, 0.0), entry.floor)
        sooner = entry.due is None or due < entry.due
        hastened = delay_seconds <= 0 and not entry.asked
        if sooner:
            entry.due = due
        if hastened:
            entry.asked = True
        if sooner or hastened:
            self._push(key, entry)

    def take(self, now: float) -> K | None:
        """The key that is to be looked at first, which is then being worked on; None when nothing is due."""
        asked, timed = self._head(self._asked), self._head(self._timed)
        first = asked is not None and (timed is None or asked[0] <= timed[0] + HEAD_START_SECONDS)
        heap = self._asked if first and asked is not None and asked[0] <= now else self._timed
        if not heap or heap[0][0] > now:
            return None
        key = heapq.heappop(heap)[2]
        entry = self._entries[key]
        entry.busy, entry.due, entry.asked = True, None, False
        return key

    def done(self, key: K, now: float, wake_seconds: float | None) -> None:
        """The pass succeeded. `wake_seconds`: look again after so long; None: only when somebody asks."""
        entry = self._entries[key]
        entry.failures, entry.floor = 0, 0.0
        self._release(key, entry, now, wake_seconds)

    def failed(self, key: K, now: float, first_seconds: float = BACKOFF_BASE_SECONDS) -> float:
        """The pass failed: it is repeated after a pause, which is returned."""
        entry = self._entries[key]
        entry.failures += 1
        pause = backoff_seconds(entry.failures, first_seconds)
        entry.floor = now + pause
        if entry.due is not None:
            entry.due = max(entry.due, entry.floor)
        self._release(key, entry, now, pause)
        return pause

    def next_due(self) -> float | None:
        """When `take` will give something, unless it is woken before; None: never."""
        heads = (self._head(self._asked), self._head(self._timed))
        return min((head[0] for head in heads if head is not None), default=None)

    def depth(self, now: float) -> int:
        """Keys that are due and wait for a worker."""
        return sum(entry.due is not None and entry.due <= now and not entry.busy for entry in self._entries.values())

    def failures(self, key: K) -> int:
        """Failed passes of `key` in a row."""
        entry = self._entries.get(key)
        return entry.failures if entry is not None else 0

    def __len__(self) -> int:
        """Keys that are busy or will be due."""
        return len(self._entries)

    def _release(self, key: K, entry: _Entry, now: float, delay_seconds: float | None) -> None:
        entry.busy = False
        if delay_seconds is not None:
            due = max(now + max(delay_seconds, 0.0), entry.floor)
            entry.due = due if entry.due is None else min(entry.due, due)
        if entry.due is None:
            # Nobody asks for it: a deleted job leaves nothing behind.
            del self._entries[key]
        else:
            self._push(key, entry)

    def _push(self, key: K, entry: _Entry) -> None:
        if entry.busy or entry.due is None:
            return
        self._tickets += 1
        entry.ticket = self._tickets
        heapq.heappush(self._asked if entry.asked else self._timed, (entry.due, self._tickets, key))

    def _head(self, heap: list[_Item[K]]) -> _Item[K] | None:
        """The first item that is still valid."""
        while heap:
            _, ticket, key = heap[0]
            entry = self._entries.get(key)
            if entry is not None and entry.due is not None and entry.ticket == ticket:
                return heap[0]
            heapq.heappop(heap)
        return None
