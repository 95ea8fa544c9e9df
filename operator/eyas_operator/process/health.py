"""When this process is healthy and when it is ready: pure judgements over a few ages.

Healthy means that a restart would not help. Nothing outside is judged: while the API server is away a leader ends by
its Lease, and a candidate waits. Ready means that it does its part: a candidate that looks after the Lease is as ready
as a leader that has seen all jobs, so that a rollout goes on.
"""

from dataclasses import dataclass
from typing import Final

PASS_SECONDS_MAX: Final = 180.0
"""Every call of a pass is bounded; one that takes longer is stuck."""
TRY_SECONDS_MAX: Final = 60.0
"""So long after its last attempt at the Lease a candidate or leader is stuck."""
RELISTS_MISSED_MAX: Final = 5
"""Lists of everything that may fail in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What is measured; seconds."""

    leading: bool
    synced: bool
    """All jobs and children were listed once."""
    lease_try_age: float
    lease_look_age: float
    """Since the Lease was last read or written with success."""
    oldest_pass: float
    relist_age: float
    """Since the last list of everything, or since leadership began."""
    relist_seconds: float
    stale_relists: int
    """Lists in a row that showed changes which the streams had not brought in time."""


def illness(vitals: Vitals) -> str:
    """Why the process should be restarted; empty when it is healthy."""
    if vitals.lease_try_age > TRY_SECONDS_MAX:
        return f"the lease was last tried {vitals.lease_try_age:.0f} s ago"
    if not vitals.leading:
        return ""
    if vitals.oldest_pass > PASS_SECONDS_MAX:
        return f"a pass has been under way for {vitals.oldest_pass:.0f} s"
    if vitals.relist_age > RELISTS_MISSED_MAX * vitals.relist_seconds:
        return f"the last list of everything was {vitals.relist_age:.0f} s ago"
    if vitals.stale_relists >= RELISTS_MISSED_MAX:
        return f"the watch streams missed changes between {vitals.stale_relists} lists in a row"
    return ""


def unreadiness(vitals: Vitals) -> str:
    """Why the process does not do its part now; empty when it does."""
    sick = illness(vitals)
    if sick:
        return sick
    if vitals.leading and not vitals.synced:
        return "the first list of everything is not complete"
    if not vitals.leading and vitals.lease_look_age > TRY_SECONDS_MAX:
        return f"the lease was last seen {vitals.lease_look_age:.0f} s ago"
    return ""
