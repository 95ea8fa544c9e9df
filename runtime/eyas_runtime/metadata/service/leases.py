"""Terms of capture leases: in memory, by the monotonic clock. Pure: callers hand in `now`.

The database knows which leases exist and how long their terms are; when they end is known here only. So a reboot or
another node cannot misread a stored instant, and a service that was away for a while (restarted, paused, starved)
gives every lease one full term before it ends any: silence that was our own fault is not held against a holder.
A lease that no tick has ended is alive, however late its renewal comes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from eyas_contract.wire import Holder
from eyas_runtime.metadata.port import LiveLease

TICK_GAP_SECONDS: Final = 3.0
"""Ticks come several times a second; a longer silence means that this process did not run."""
OVERRUNS_MAX: Final = 10
"""The capture deadline of a group doubles at most so often."""


def capture_deadline(base_seconds: float, overruns: int) -> float:
    """Capture deadline of a group that a live holder exceeded `overruns` times."""
    return base_seconds * 2.0 ** min(overruns, OVERRUNS_MAX)


@dataclass(slots=True)
class _Term:
    holder: Holder
    group: int
    term_seconds: float
    expires_at: float
    deadline_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """A lease that ended because of time."""

    lease_id: str
    group: int
    holder: Holder
    over_deadline: bool
    """True: its holder was alive and renewing, but the capture took longer than the group's deadline."""


class LeaseTerms:
    """The terms of all live leases of one job."""

    def __init__(self) -> None:
        self._terms: dict[str, _Term] = {}
        self._last_tick: float | None = None

    def __len__(self) -> int:
        return len(self._terms)

    def adopt(self, live: Iterable[LiveLease], *, now: float) -> None:
        """Take over the leases found in the database: each gets one full term and its whole deadline."""
        for lease in live:
            self.granted(lease, now=now)

    def granted(self, lease: LiveLease, *, now: float) -> None:
        """Start the term of a lease; one that is known already keeps its own."""
        if lease.lease_id in self._terms:
            return
        deadline_at = now + lease.deadline_seconds
        self._terms[lease.lease_id] = _Term(
            lease.holder, lease.group, lease.term_seconds, min(now + lease.term_seconds, deadline_at), deadline_at
        )

    def renew(self, holder: Holder, lease_ids: Sequence[str], *, now: float) -> tuple[str, ...]:
        """Extend exactly the named leases of `holder`, none past its deadline; returns those that are alive."""
        alive = []
        for lease_id in lease_ids:
            term = self._terms.get(lease_id)
            if term is None or term.holder != holder:
                continue
            term.expires_at = max(term.expires_at, min(now + term.term_seconds, term.deadline_at))
            alive.append(lease_id)
        return tuple(alive)

    def drop(self, lease_ids: Iterable[str]) -> None:
        """These ended for another reason than time."""
        for lease_id in lease_ids:
            self._terms.pop(lease_id, None)

    def held_by(self, holder: Holder, lease_ids: Iterable[str]) -> tuple[str, ...]:
        """Those of `lease_ids` that are alive and this holder's."""
        return tuple(
            lease_id for lease_id in lease_ids if (term := self._terms.get(lease_id)) and term.holder == holder
        )

    def tick(self, *, now: float) -> tuple[Expired, ...]:
        """End what is over. After a gap in the ticks nothing ends, and every lease gets one full term instead."""
        gap = 0.0 if self._last_tick is None else now - self._last_tick
        self._last_tick = now
        if gap > TICK_GAP_SECONDS:
            for term in self._terms.values():
                term.deadline_at = max(term.deadline_at + gap, now + term.term_seconds)
                term.expires_at = now + term.term_seconds
            return ()
        over = [
            Expired(lease_id=lease_id, group=term.group, holder=term.holder, over_deadline=now >= term.deadline_at)
            for lease_id, term in self._terms.items()
            if term.expires_at <= now
        ]
        for expired in over:
            del self._terms[expired.lease_id]
        return tuple(over)
