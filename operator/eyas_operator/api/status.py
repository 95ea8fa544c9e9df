"""The job's status: what was observed, and the few counters that have no other home.

Everything is rebuildable from the world except the numbers that fence (attempt, store epoch, ordinals) and the budgets;
those are written before anything acts on them. Frozen dataclasses, so that `dataclasses.replace` is type-checked; JSON
is camelCase. Times are RFC 3339; the empty string means "not yet".
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from eyas_operator.api.base import CAMEL
from eyas_operator.api.incidents import Incident
from eyas_operator.api.progress import NO_CHECKPOINT, NOT_BEGUN, CheckpointStatus, Progress, Result
from eyas_operator.names import Role


class Stage(StrEnum):
    """What the operator is doing with the job; decides which pods there should be."""

    NEW = "New"
    RUNNING = "Running"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    FINISHING = "Finishing"
    """Training is complete; the last features are swept."""
    ENDED = "Ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A Kubernetes condition."""

    __pydantic_config__ = CAMEL

    type: str
    """What is said."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: str
    """Why, in one word that programs may compare."""
    message: str
    """Why, for people."""
    last_transition_time: str
    """When `status` flipped last."""
    # The definition does not ask for it: a condition that somebody else wrote must not make the status unreadable.
    observed_generation: int = 0
    """Generation of the spec that this was said of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The smallest thing that restarts as a whole: one pod, or the gang of consumers."""

    __pydantic_config__ = CAMEL

    role: Role
    index: int
    """0 for the gang."""
    serial: int
    """Ordinal of its pod, or attempt of the gang. Never lowered, never used twice."""
    idle: bool = False
    """It should have no pod now (suspended, drained, scaled away); woken with the next serial."""
    launched: bool = False
    """A pod of this serial may exist: it is never created a second time."""
    seen: tuple[int, ...] = ()
    """Indices of pods of this serial that were observed."""
    not_before_time: str = ""
    """Earliest creation of its pods (backoff)."""
    restarts_without_progress: int = 0
    """Restarts that count against the budget."""
    pauses_without_progress: int = 0
    """All restarts, also those that do not count; sets the backoff."""
    out_of_memory: int = 0
    """Times without progress that it ran out of memory."""
    restarts: int = 0
    """All restarts of its life."""
    last_class: str = ""
    """Class of its last failure."""
    last_message: str = ""
    """What was known of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """Shape of the present attempt of the consumers."""

    __pydantic_config__ = CAMEL

    replicas: int = 0
    """Consumer pods of the present attempt."""
    processes_per_pod: int = 0
    """Ranks in each."""
    draining_reason: str = ""
    """Non-empty: its pods were asked to checkpoint and stop; the next attempt follows."""
    draining_time: str = ""
    """Since when they are asked to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataState:
    """The claim of the present store epoch."""

    __pydantic_config__ = CAMEL

    claim_uid: str = ""
    """UID under which the claim was first seen; another one, or none, means that it is lost."""
    ready: bool = False
    """Its service answered at least once."""
    absent_time: str = ""
    """Since when no metadata pod runs although one did."""
    damaged_epochs: tuple[int, ...] = ()
    """Store epochs that ended with a damaged database, which stays in its claim as long as the job exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleStatus:
    """Counts of one role's pods, of the present serials only."""

    __pydantic_config__ = CAMEL

    name: Role
    desired: int
    """Pods that should exist."""
    ready: int
    """Of these, ready."""
    restarts: int
    """Of the role's units, over their lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStrikes:
    """A node on which pods failed in a way that points at its hardware."""

    __pydantic_config__ = CAMEL

    node: str
    """Name of the node."""
    strikes: int
    """How often; halved as time passes."""
    last_time: str
    """The last time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """The last sweep of a pool that other jobs share, owed before the job may go."""

    __pydantic_config__ = CAMEL

    began_time: str = ""
    """Since when it is worked on."""
    serial: int = 0
    """Ordinal of the present sweeper's pod."""
    not_before_time: str = ""
    """Earliest creation of its successor."""
    outcome: Literal["", "NotNeeded", "Swept", "GivenUp"] = ""
    """Empty while it is owed. `GivenUp`: the pool may still hold features of this job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """Everything under `status`."""

    __pydantic_config__ = CAMEL

    observed_generation: int = 0
    """Generation of the spec that this status speaks of."""
    stage: Stage = Stage.NEW
    stage_time: str = ""
    """Since when."""
    state: str = ""
    """A summary for people; nothing reads it back."""
    conditions: tuple[Condition, ...] = ()
    """What is true of the job; all types from the first visit."""
    start_time: str = ""
    """Start, or last resumption."""
    completion_time: str = ""
    """When it ended."""
    attempt: int = 0
    """Of the consumer gang."""
    store_epoch: int = 0
    """Of the metadata claim."""
    spec_digest: str = ""
    """Digest of the parts of the spec that may not change."""
    start_step: int = 0
    """Durable step at `startTime`."""
    first_step_seen: bool = False
    """A step was seen since `startTime`."""
    units: tuple[Unit, ...] = ()
    """Everything that restarts as a whole, with its number and its budget."""
    gang: Gang = Gang()
    released_time: str = ""
    """Non-empty: since then producers and consumers have no pods, because one of the job's pods found no place."""
    metadata: MetadataState = MetadataState()
    checkpoints_claim_uid: str = ""
    """Under which the claim of the checkpoints was first seen."""
    roles: tuple[RoleStatus, ...] = ()
    """Pods by role."""
    producer_replicas: int = 0
    """Producer pods that exist; for the scale subresource."""
    producer_selector: str = ""
    """Label selector of producer pods; likewise."""
    restarts: int = 0
    """All restarts of pods and gangs."""
    progress: Progress = NOT_BEGUN
    checkpoint: CheckpointStatus = NO_CHECKPOINT
    incidents: tuple[Incident, ...] = ()
    """What went wrong, the newest last."""
    strikes: tuple[NodeStrikes, ...] = ()
    """Nodes that new pods may avoid."""
    result: Result | None = None
    cleanup: Cleanup = Cleanup()


STATUS: Final[TypeAdapter[JobStatus]] = TypeAdapter(JobStatus)


def load_status(raw: object) -> JobStatus:
    """The typed status of a resource; an absent one is the empty one. Raises `ValueError` if it is not ours."""
    return STATUS.validate_python(raw or {})


def first_reason(error: ValidationError) -> str:
    """The first thing that is wrong with a status, in a few words."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"


def dump_status(status: JobStatus) -> dict[str, Any]:
    """JSON of a status; equal statuses give equal JSON."""
    dumped: dict[str, Any] = STATUS.dump_python(status, mode="json", exclude_none=True)
    return dumped
