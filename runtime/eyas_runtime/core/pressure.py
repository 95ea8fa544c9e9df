"""Admission of capture groups by bytes: what the service does next about the lowest group in need.

The order of the rules is what keeps a job from standing still with a full pool. Groups are admitted strictly by lowest
sequence number. A reserve of one window and one capture group is left under the cap for the next untrained window
alone, so that a sample lost from it can always be captured again. When even that is not enough, bytes must come back:
first those whose deletion is under way, then objects that are only kept for a later epoch, then everything that a
checkpoint makes releasable, and last the highest sequence numbers, which are captured again later.
"""

from dataclasses import dataclass
from typing import Final, Literal

POOL_FRACTION: Final = 0.75
"""Of a pool of our own: Mooncake refuses at 90 % and fragmentation takes up to 16 % on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the store and the pool look like now. All sizes are bytes."""

    cap_bytes: int
    """`effective_cap` of this moment."""
    limit_bytes: int
    """`effective_cap` with all nodes of the pool there: what may be waited for."""
    resident_bytes: int
    """Bytes of all objects that have a row, garbage included."""
    garbage_bytes: int
    """Part of `resident_bytes` that may be deleted at any moment: it comes back without our doing."""
    kept_bytes: int
    """Part of `resident_bytes` that only later epochs use."""
    reserved_bytes: int
    """Promised to live leases and not yet committed."""
    window_bytes: int
    """Estimate of all samples of the next untrained window."""
    largest_group_bytes: int
    """Estimate of the largest capture group that touches that window."""
    next_window_end: int
    """First sequence number after the next untrained window."""
    group_first_sequence: int | None
    """Lowest sequence number in need; None when nothing is."""
    group_bytes: int
    """Estimate of the members of its group that are in need."""
    group_end: int
    """First sequence number after that group."""
    evictable_bytes: int
    """Bytes of objects whose lowest use is at or above both `group_end` and `next_window_end`, kept ones excluded."""
    checkpoint_frees_bytes: int
    """Bytes in windows that are trained and not durable: what a checkpoint now would make releasable."""
    checkpoint_pending: bool
    """A checkpoint is ordered and not yet committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now. `reason` is for people."""

    kind: Literal["idle", "lease", "wait", "checkpoint", "evict", "impossible"]
    nbytes: int = 0
    """evict: bytes to free."""
    above_sequence: int = 0
    """evict: only objects whose uses are all at or above this sequence number."""
    reason: str = ""


def effective_cap(*, spec_bytes: int, pool_capacity_bytes: int | None, external: bool) -> int:
    """Cap in bytes: what the spec allows, and no more than 0.75 of what a pool of our own has.

    `pool_capacity_bytes` is None where the pool has no capacity of its own (memory, a shared directory).
    """
    if external or pool_capacity_bytes is None:
        return spec_bytes
    return min(spec_bytes, int(pool_capacity_bytes * POOL_FRACTION))


def decide(view: View) -> Decision:
    """The next action for the lowest group in need."""
    if view.group_first_sequence is None:
        return Decision(kind="idle")
    urgent = view.group_first_sequence < view.next_window_end
    taken = view.resident_bytes + view.reserved_bytes
    reserve = 0 if urgent else view.window_bytes + view.largest_group_bytes
    missing = taken + view.group_bytes + reserve - view.cap_bytes
    if missing <= 0:
        return Decision(kind="lease")
    if view.garbage_bytes > 0:
        return Decision(kind="wait", reason=f"{view.garbage_bytes} bytes are being released")
    if view.kept_bytes > 0:
        nbytes = min(missing, view.kept_bytes)
        return Decision(kind="evict", nbytes=nbytes, above_sequence=view.group_end, reason="kept for later epochs")
    if not urgent:
        return Decision(kind="wait", reason=f"the store is full: {taken} of {view.cap_bytes} bytes")
    return _make_room(view, missing)


def _make_room(view: View, missing: int) -> Decision:
    """The next untrained window itself cannot be admitted."""
    if view.checkpoint_pending:
        return Decision(kind="wait", reason="a checkpoint that frees room is being written")
    if view.checkpoint_frees_bytes > 0:
        return Decision(kind="checkpoint", reason="the next window cannot be admitted")
    if view.evictable_bytes > 0:
        above = max(view.group_end, view.next_window_end)
        nbytes = min(missing, view.evictable_bytes)
        return Decision(kind="evict", nbytes=nbytes, above_sequence=above, reason="the next window cannot be admitted")
    if view.reserved_bytes > 0:
        return Decision(kind="wait", reason="leased captures hold the room; they commit or expire")
    needed = view.resident_bytes + view.group_bytes
    if needed <= view.limit_bytes:
        # A store node, or the master that knows of it, is on its way back.
        return Decision(kind="wait", reason=f"the store holds {view.cap_bytes} of {view.limit_bytes} bytes now")
    return Decision(
        kind="impossible",
        reason=f"one window needs {needed} bytes, but the feature store may hold {view.limit_bytes}: raise "
        "store.maxResidentBytes (and the nodes' segmentSize), or lower training.windowSize",
    )
