"""The job's status: what was observed, and the few counters that have no other home.

Everything is rebuildable from the world except the numbers that fence (attempt, store epoch, ordinals) and the budgets;
those are written before anything acts on them. Frozen dataclasses, so that `dataclasses.replace` is type-checked; JSON
is camelCase. Times are RFC 3339; the empty string means "not yet".
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from eyas_operator.names import Role

_CAMEL: Final = ConfigDict(
    alias_generator=to_camel,
    validate_by_name=True,
    extra="ignore",
    serialize_by_alias=True,
    use_attribute_docstrings=True,
)
INCIDENTS_MAX: Final = 30
INCIDENT_MESSAGE_CHARACTERS_MAX: Final = 512
RESTART_CLASSES: Final = frozenset({"ChildExited", "Hang", "GangReplaced"})
"""Classes of the metadata service's incidents after which processes were started again in their pods."""


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

    __pydantic_config__ = _CAMEL

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
    observed_generation: int
    """Generation of the spec that this was said of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The smallest thing that restarts as a whole: one pod, or the gang of consumers."""

    __pydantic_config__ = _CAMEL

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

    __pydantic_config__ = _CAMEL

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

    __pydantic_config__ = _CAMEL

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

    __pydantic_config__ = _CAMEL

    name: Role
    desired: int
    """Pods that should exist."""
    ready: int
    """Of these, ready."""
    restarts: int
    """Of the role's units, over their lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The metadata service's numbers, as of `observed_time`."""

    __pydantic_config__ = _CAMEL

    step: int = 0
    """Last window that the ranks have done; with evaluation, windows of both kinds count."""
    durable_step: int = 0
    """Window of the last durable checkpoint."""
    total_steps: int = 0
    """Windows of the whole run."""
    training_step: int = 0
    """Optimizer steps in the ranks' weights."""
    total_training_steps: int = 0
    """Optimizer steps of the whole run."""
    produced: int = 0
    """Samples captured at least once."""
    acked: int = 0
    """Samples trained, not necessarily durable."""
    evaluated: int = 0
    """Uses of held-out samples, not necessarily durable."""
    lag: int = 0
    """Samples that wait in the store."""
    dead_letters: int = 0
    """Samples that are left out, each with a reason."""
    total_samples: int = 0
    """Uses of samples in the whole run."""
    resident_bytes: int = 0
    """Bytes in the store."""
    steps_per_second: str = "0"
    """A decimal in a string: Kubernetes wants no floats in objects."""
    loss: str = ""
    """Loss of the last step; a decimal in a string."""
    last_advance_time: str = ""
    """When `step` rose last."""
    observed_time: str = ""
    """When these numbers were seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointStatus:
    """The newest durable checkpoint."""

    __pydantic_config__ = _CAMEL

    step: int = 0
    """Window that it ends with."""
    directory: str = ""
    """Its folder below the checkpoints' volume."""
    time: str = ""
    """When it was first seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something that went wrong, and what it cost."""

    __pydantic_config__ = _CAMEL

    klass: Annotated[str, Field(alias="class")]
    """Failure class."""
    unit: str
    """For example `producer-1` or `consumers`."""
    source: Literal["Operator", "Service"]
    """Who saw it: the operator, or the job's metadata service."""
    message: str
    """What was known of it."""
    node: str = ""
    """Where the pod ran."""
    serial: int = 0
    """Ordinal or attempt that failed."""
    counted: bool = False
    """Counts against the restart budget."""
    detected_time: str = ""
    """When it was seen."""
    replaced_time: str = ""
    """The successor was ready."""
    first_step_time: str = ""
    """First optimizer step (or capture) after it; empty for ever when it ended in another way than `Recovered`."""
    seconds: int = -1
    """From detection to the first step; -1 without one."""
    outcome: Literal["", "Recovered", "Suspended", "Ended", "Removed"] = ""
    """Empty while open. `Recovered`: work was seen after it. Otherwise none was: the job was suspended or ended
    first, or its unit was not wanted any more."""
    windows_replayed: int = 0
    """Windows that were trained again."""
    step_detected: int = 0
    """Last step before it."""
    step_resumed: int = -1
    """Step from which training went on; -1 while unknown."""
    samples_resumed: int = -1
    """Captured samples when capture went on; -1 while unknown."""

    @property
    def open(self) -> bool:
        """It is not over."""
        return not self.outcome

    @property
    def restart(self) -> bool:
        """Something was started again because of it."""
        return self.source == "Operator" or self.klass in RESTART_CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStrikes:
    """A node on which pods failed in a way that points at its hardware."""

    __pydantic_config__ = _CAMEL

    node: str
    """Name of the node."""
    strikes: int
    """How often; halved as time passes."""
    last_time: str
    """The last time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BestCheckpoint:
    """The checkpoint with the lowest loss on held-out prompts."""

    __pydantic_config__ = _CAMEL

    step: int
    """Optimizer steps in it."""
    directory: str
    """Its folder below the checkpoints' volume."""
    eval_loss: str
    """A decimal in a string: Kubernetes wants no floats in objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came out."""

    __pydantic_config__ = _CAMEL

    steps: int
    """Optimizer steps in the weights."""
    samples_trained: int
    """Uses of samples in the weights."""
    samples_dead: int
    """Uses of samples that were left out."""
    checkpoint_directory: str
    """Folder of the last checkpoint."""
    weights_sha256: str
    """Digest of the final weights: equal for every run of the job, whatever was killed."""
    exact: bool
    """Nothing was seen that changes bits."""
    incidents: int
    """How many there were."""
    restarts: int
    """Of pods and gangs."""
    samples_evaluated: int = 0
    """Uses of held-out samples, over all evaluations."""
    best: BestCheckpoint | None = None
    """None: nothing is held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """Everything under `status`."""

    __pydantic_config__ = _CAMEL

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
    progress: Progress = Progress()
    checkpoint: CheckpointStatus = CheckpointStatus()
    incidents: tuple[Incident, ...] = ()
    """What went wrong, the newest last."""
    strikes: tuple[NodeStrikes, ...] = ()
    """Nodes that new pods may avoid."""
    result: Result | None = None


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
