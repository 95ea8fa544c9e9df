"""Values that cross the port: what the store is told, and what it answers besides wire messages."""

import msgspec

from eyas_contract import wire
from eyas_contract.ids import Incarnation, JobUid, LeaseToken, ObjectKey
from eyas_runtime.core.sequence import Schedule


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
    evaluate_every: int = 0
    """Training windows between two evaluations; 0 is never."""
    allow_restart_from_zero: bool = False

    def schedule(self, prepared: wire.Prepared | None) -> Schedule:
        """The order of the whole job; empty while the inputs are not prepared."""
        return Schedule(
            prompts=0 if prepared is None else prepared.prompt_count,
            window_size=self.window_size,
            group_size=self.group_size,
            epochs=self.epochs,
            max_steps=self.max_steps,
            seed=self.seed,
            held_out=0 if prepared is None else prepared.held_out_count,
            evaluate_every=self.evaluate_every,
        )


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
