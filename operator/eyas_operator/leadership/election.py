"""The rules of leader election over one Lease: pure functions of what was read and when it was seen here.

Only durations on our own monotonic clock count: the times inside a Lease were written by somebody else's clock and are
for people. A holder that was *seen to change nothing* for the term of its Lease is dead to us. A leader counts its own
time from *before* its last successful renewal was sent, and gives up at `renew_seconds`, well before anybody may take
over at `lease_seconds`: clocks may differ as they like, and run at rates that differ by up to a fifth.

A Lease that names ourselves is ours at once. The name is the pod's, which no other process has: whoever wrote it was
an earlier container of this very pod, which ended before we began.
"""

from dataclasses import dataclass
from typing import Final

LEASE_SECONDS: Final = 15.0
"""A holder that is seen to do nothing for so long has lost the Lease."""
RENEW_SECONDS: Final = 10.0
"""A leader that could not renew for so long stops."""
RETRY_SECONDS: Final = 2.0
"""Pause between two looks, of leaders and others alike."""
RELEASED_SECONDS: Final = 1
"""Term that is written when the Lease is given back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The Lease as read; `version` guards every write to it."""

    holder: str
    """Empty: given back."""
    version: str
    lease_seconds: float = LEASE_SECONDS
    transitions: int = 0
    acquire_time: str = ""
    renew_time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """When the Lease was first seen in the state in which it is."""

    lease: Lease
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Write the Lease with our name. `over` is what was read, None where there is no Lease yet."""

    over: Lease | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Somebody else holds it: look again after `seconds` at the latest."""

    seconds: float


def sighted(before: Sighting | None, lease: Lease, now: float) -> Sighting:
    """What we know after one more look: an unchanged Lease keeps the time of its first sighting."""
    if before is not None and before.lease == lease:
        return before
    return Sighting(lease=lease, seconds=now)


def decide(sighting: Sighting | None, me: str, now: float) -> Claim | Wait:
    """What a candidate does after a look. `sighting` is None where there is no Lease."""
    if sighting is None:
        return Claim(over=None)
    lease = sighting.lease
    if lease.holder in ("", me):
        return Claim(over=lease)
    # The longer of both terms: another version of the operator may hold it by other rules.
    expires = sighting.seconds + max(lease.lease_seconds, LEASE_SECONDS)
    if now >= expires:
        return Claim(over=lease)
    return Wait(seconds=min(RETRY_SECONDS, expires - now))


def leads_until(sent: float) -> float:
    """Until when a leader may act whose last successful renewal was sent at `sent`."""
    return sent + RENEW_SECONDS


def claimed(over: Lease | None, me: str, now_time: str) -> Lease:
    """The Lease to write; its version is that of the one it replaces."""
    if over is None:
        return Lease(holder=me, version="", acquire_time=now_time, renew_time=now_time)
    mine = over.holder == me
    return Lease(
        holder=me,
        version=over.version,
        transitions=over.transitions if mine else over.transitions + 1,
        acquire_time=over.acquire_time if mine and over.acquire_time else now_time,
        renew_time=now_time,
    )


def given_back(held: Lease, now_time: str) -> Lease:
    """The Lease without a holder: the next candidate that looks takes it."""
    return Lease(
        holder="",
        version=held.version,
        lease_seconds=RELEASED_SECONDS,
        transitions=held.transitions,
        acquire_time=now_time,
        renew_time=now_time,
    )
