"""Port `MetadataStore`: every state change of a job as one transaction.

Two adapters pass one conformance suite: `sqlite.SQLiteMetadataStore` (the product) and `fake.InMemoryMetadataStore`
(shipped for tests of others). The port is synchronous and single-threaded: the service calls it from one thread. It
reads no clock and no randomness: callers hand in `now` (Unix seconds, recorded, never compared) and minted nonces
where a method needs them. Lease terms are not its business (the service keeps them in memory, by the monotonic
clock); it only knows which leases exist.

Errors: `Fenced` (older attempt, incarnation, ordinal or epoch), `Closed` (incarnation closed), `Conflict` (state does
not allow it), `UserError` (unknown id, contradiction in the inputs). A failed call changes nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from eyas_contract import wire
from eyas_contract.ids import Incarnation, JobUid, LeaseToken, ObjectKey
from eyas_contract.refs import SampleRef


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the store must know of the job before anything else; immutable, compared at every open."""

    job_uid: JobUid
    store_epoch: int
    window_size: int
    group_size: int
    epochs: int
    max_steps: int | None
    seed: int
    retain_objects: bool
    """True for ingested feature files: one object may serve several sequence numbers."""
    allow_restart_from_zero: bool = False


class LeaseGrant(msgspec.Struct, frozen=True, kw_only=True):
    """What the service decided to lease (by `core.pressure`): one group, with nonces it minted."""

    holder: wire.Holder
    request_id: str
    group: int
    lease_id: str
    token: LeaseToken
    randoms: tuple[str, ...]
    """One 32-hex-digit random part per member, for the keys."""
    reserved_bytes: int
    term_seconds: float
    deadline_seconds: float


class GroupNeed(msgspec.Struct, frozen=True, kw_only=True):
    """A capture group that has members to capture and no live lease."""

    group: int
    first_sequence: int
    """Lowest sequence number in need."""
    members_in_need: int
    estimated_bytes: int
    end_sequence: int
    """First sequence number after the group."""
    overruns: int = 0
    """How often a live holder exceeded this group's capture deadline: the deadline doubles with each."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes and counts for backpressure."""

    resident_bytes: int
    """Of all object rows, garbage and kept ones included."""
    resident_objects: int
    reserved_bytes: int
    live_leases: int
    garbage_bytes: int = 0
    """May be deleted now (`releasable`)."""
    kept_bytes: int = 0
    """Of ingested objects that only sequence numbers of later epochs use."""
    trained_bytes: int = 0
    """In windows > durable step that the newest incarnation acked: what a checkpoint now would make garbage."""


class LiveLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease in the table, for the service's timers."""

    lease_id: str
    holder: wire.Holder
    group: int
    term_seconds: float
    deadline_seconds: float


class StoredObject(msgspec.Struct, frozen=True, kw_only=True):
    """One object row."""

    key: ObjectKey
    length: int


class GangState(msgspec.Struct, frozen=True, kw_only=True):
    """The newest incarnation, as stored."""

    attempt: int
    incarnation: Incarnation | None
    open: bool
    checkpoint_step: int
    checkpoint_directory: str
    world_size: int
    orders_given: int
    sealed_step: int
    acked_step: int
    """Highest contiguous step acked in this incarnation (or its checkpoint step)."""
    durable_step: int
    checkpoint_ordered_step: int
    """Step of the checkpoint ordered and not yet committed in this incarnation; 0 when none."""
    ordered_step: int
    """Highest step whose window this incarnation was ordered to train (or its checkpoint step)."""
    ending: bool
    """Its last order was given: `stop`, or a checkpoint with `last`."""


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """A capture group whose holders died or vanished while they had it, since its last commit."""

    group: int
    deaths: int
    prompts: tuple[int, ...]
    """Prompt indices of its members in need."""


class MetadataStore(Protocol):
    """See the module docstring.

    Steps count from 1, as optimizer steps do: step w trains sequence numbers [(w - 1) Q, w Q), cut at the end of the
    sequence; "window w" is the window of step w. Step 0 is the initial weights. Generations count from 1.
    """

    # inputs
    def prepared(self) -> wire.Prepared | None: ...
    def commit_prepared(self, prepared: wire.Prepared, *, now: float) -> None: ...
    def total_samples(self) -> int:
        """min(epochs * N, max_steps * Q); 0 while not prepared."""
        ...

    # producers
    def register(self, holder: wire.Holder, fingerprint: wire.Fingerprint, *, now: float) -> tuple[str, ...]:
        """Admit a producer process and end its predecessors' leases; returns their ids. `Fenced` if not the newest."""
        ...

    def groups_in_need(self, *, limit: int) -> Sequence[GroupNeed]:
        """Groups with pending or lost members and no live lease, by lowest sequence number in need.

        With `retain_objects`, members whose prompt has a resident object become ready here, without a capture. A fresh
        store of a later epoch answers nothing before its first reconcile: it does not know what is trained.
        """
        ...

    def all_captured(self) -> bool:
        """No sequence number is left to capture, leased ones included; some may still be lost later."""
        ...

    def grant(self, grant: LeaseGrant, *, now: float) -> wire.CaptureLease:
        """Write lease, reservation and minted keys. The same holder and request_id get the stored lease again."""
        ...

    def granted(self, holder: wire.Holder, request_id: str) -> wire.CaptureLease | None:
        """The lease that this request was given before, while it is live. `Fenced` if the holder is not the newest."""
        ...

    def live_leases(self) -> Sequence[LiveLease]: ...
    def end_leases(self, lease_ids: Iterable[str], *, reason: str, now: float) -> None:
        """Expiry, return or replacement: keys become orphans for the sweep, members are in need again.

        `reason` "expired" or "replaced" counts a death for the group, "deadline" an overrun, "returned" nothing.
        """
        ...

    def suspects(self, *, limit: int) -> Sequence[Suspect]:
        """Groups whose holders died, most often first."""
        ...

    def commit_samples(
        self, holder: wire.Holder, lease_id: str, token: LeaseToken, refs: Sequence[SampleRef], *, now: float
    ) -> tuple[int, ...]:
        """Guarded by the live lease and its keys. All or nothing. Counts drift against an earlier payload digest."""
        ...

    def fail_capture(
        self,
        holder: wire.Holder,
        lease_id: str,
        token: LeaseToken,
        failures: Sequence[wire.CaptureFailure],
        *,
        now: float,
    ) -> bool:
        """Poison becomes a dead letter (a new window version when sealed above the durable step), the rest is in need
        again. Returns True when the open incarnation had been handed the window; it is closed by this call."""
        ...

    # consumers
    def gang(self) -> GangState: ...
    def known_checkpoints(self) -> tuple[wire.KnownCheckpoint, ...]: ...
    def reconcile_on_restart(
        self, request: wire.ReconcileRequest, incarnation: Incarnation, *, receipt_valid: bool, now: float
    ) -> wire.ReconcileReply:
        """The one way back (B4): `core.recovery` decides. `receipt_valid`: the service checked the HMAC.

        The same process asking again gets the incarnation that it was given. `CheckpointsLost` (a `UserError`) also
        marks the job failed.
        """
        ...

    def join(self, attempt: int, rank: int, process: str, *, now: float) -> GangState:
        """Record the member. A second process of one rank in an open incarnation closes it.

        Answers with `incarnation` None while none of this attempt is open; `Closed` for a process that had its turn.
        """
        ...

    def close_incarnation(self, incarnation: Incarnation, *, klass: str, message: str, now: float) -> None:
        """Close it and open an incident. Harmless when it is closed or unknown."""
        ...

    def report_exit(self, request: wire.ExitRequest, *, now: float) -> None:
        """Close the open incarnation of that process, unless it ended as ordered (code 0 or 75 after stop or last)."""
        ...

    def closed_processes(self, attempt: int, processes: Sequence[str]) -> tuple[str, ...]:
        """Those of `processes` that belong to a closed incarnation. `Fenced` for an attempt that is over."""
        ...

    def order(self, incarnation: Incarnation, ordinal: int) -> wire.Order | None:
        """The stored order, if it was given before."""
        ...

    def window_ready(self, step: int) -> bool:
        """Every place of window `step` is ready or dead."""
        ...

    def give_train_order(self, incarnation: Incarnation, ordinal: int, step: int, *, now: float) -> wire.Order:
        """Seal window `step` (or hand out the sealed one) and store the order. `Conflict` when not ready."""
        ...

    def give_checkpoint_order(
        self, incarnation: Incarnation, ordinal: int, step: int, *, last: bool, reason: str, now: float
    ) -> wire.Order: ...
    def give_stop_order(
        self, incarnation: Incarnation, ordinal: int, step: int, *, reason: str, now: float
    ) -> wire.Order: ...

    def record_train_ack(self, request: wire.AckRequest, *, now: float) -> None:
        """Step-stamped, monotonic within the incarnation, contiguous; a repeat is harmless."""
        ...

    def report_lost(self, incarnation: Incarnation, samples: Sequence[wire.LostSample], *, now: float) -> int:
        """Only generations that are still the row's count. Returns how many samples became lost."""
        ...

    def current_refs(
        self, incarnation: Incarnation, step: int, version: int, sequences: Sequence[int]
    ) -> wire.RefsReply:
        """`Closed` when the window has a newer version."""
        ...

    def commit_checkpoint(
        self, request: wire.CheckpointCommitRequest, receipt: str, *, keep: int, now: float
    ) -> tuple[str, ...]:
        """The single commit point: acks every sealed window <= C, writes the verdicts, moves the durable step.

        Stores the receipt; a repeat for the same manifest digest returns the same. Returns garbage directories.
        """
        ...

    # objects
    def usage(self) -> Usage: ...
    def releasable(self, *, limit: int) -> Sequence[StoredObject]:
        """Objects all of whose uses are trained in windows <= durable step, or superseded, or dead."""
        ...

    def forget_objects(self, keys: Sequence[ObjectKey]) -> None:
        """They were deleted from the store."""
        ...

    def live_keys(self, keys: Sequence[ObjectKey]) -> frozenset[ObjectKey]:
        """Those of `keys` that are in a row or in a live lease: the sweep must spare them."""
        ...

    def mark_missing(self, keys: Sequence[ObjectKey], *, reason: str, now: float) -> int:
        """Ready samples whose object is not in the pool become lost. Returns how many."""
        ...

    def resident(self, *, after: ObjectKey | None, limit: int) -> Sequence[StoredObject]:
        """Objects that are in use or kept, in order of generation, for comparison with a listing of the pool.

        `after` is a cursor: the last key of the page before.
        """
        ...

    def evictable_bytes(self, above_sequence: int) -> int:
        """Bytes of objects in use whose lowest use is >= `above_sequence`."""
        ...

    def evict(self, *, nbytes: int, above_sequence: int, now: float) -> int:
        """Make ready samples lost, from the highest sequence number down to `above_sequence`, to free `nbytes`."""
        ...

    # facts
    def durable_marker(self) -> tuple[int, int]:
        """(durable step, samples in windows <= it)."""
        ...

    def all_committed_ids(self) -> Iterable[str]:
        """Sample ids in commit order."""
        ...

    def status(self) -> wire.StatusReply:
        """With the fields that only the service knows (cap, paused, seconds_since_advance) left at zero."""
        ...

    def metrics(self, after_step: int, limit: int) -> wire.MetricsReply: ...
    def audit(self) -> wire.AuditReply: ...
    def add_incident(self, incident: wire.Incident) -> None: ...
    def set_inexact(self, reason: str) -> None: ...
    def fail_job(self, message: str, *, now: float) -> None:
        """Mark the job failed; the first message stays."""
        ...

    def close(self) -> None: ...
