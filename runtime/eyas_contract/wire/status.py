"""Messages of readers: what operators, people and tests see of a job."""

from eyas_contract.ids import JobUid
from eyas_contract.states import Gang, Phase
from eyas_contract.wire.checkpoints import Best, DeadLetter
from eyas_contract.wire.common import Message, Ratio, Seconds, Total


class Incident(Message, frozen=True, kw_only=True):
    """Something that went wrong and what it cost."""

    klass: str
    """ChildExited, Hang, GangReplaced, SampleLost, CheckpointStruck, CheckpointRefused, MetadataRestored, JobFailed."""
    unit: str
    """For example `consumers`, `producer-1`, `store-master`."""
    message: str
    detected: float
    """Unix seconds."""
    step: int = 0
    recovered: float = 0.0
    """Unix seconds of the first optimizer step (or capture) after it; 0 while open."""
    windows_replayed: int = 0
    serial: int = 0
    """Attempt of the ranks or ordinal of the pod that it happened to."""
    replaced: float = 0.0
    """Unix seconds at which the successor was there (ranks: reconciled; others: ready); 0 while it is not."""


class StatusReply(Message, frozen=True, kw_only=True):
    """All that operators, people and tests see of a running job.

    Fields with a default may be missing: the image of a service may be older than who asks. None is "not told".
    """

    job_uid: JobUid
    store_epoch: int
    phase: Phase
    failure: str
    attempt: int
    incarnation: str
    gang: Gang
    total_steps: int
    total_samples: int
    sealed_step: int
    acked_step: int
    durable_step: int
    samples_ready: int
    samples_lost: int
    samples_dead: int
    samples_committed: int
    """Sequence numbers that were committed at least once."""
    samples_recaptured: int
    """Captures of samples whose features had been in the store before and were lost: gone, evicted, released too early
    for a way back, or with other bytes than were committed."""
    samples_trained: int
    """Training samples inside windows <= acked_step that are not dead."""
    samples_evaluated: int = 0
    """Uses of held-out samples inside windows <= acked_step that are not dead."""
    resident_objects: int
    resident_bytes: int
    reserved_bytes: int
    cap_bytes: int
    live_leases: int
    paused: str
    exact: bool
    inexact_reasons: tuple[str, ...]
    capture_drift: int
    seconds_since_advance: float
    steps_per_second: float
    last_metrics: dict[str, float]
    checkpoint_directory: str
    weights_sha256: str
    dead_letters: tuple[DeadLetter, ...]
    incidents: tuple[Incident, ...]
    suspects: tuple[str, ...] = ()
    """Prompts whose capture group was held by producers that died, most often first."""
    total_training_steps: int = 0
    """Optimizer steps of the whole job. Every `*_step` counts windows, those of evaluations included."""
    acked_training_step: int = 0
    durable_training_step: int = 0
    best: Best | None = None
    """As of the newest durable checkpoint."""
    reached_step: Total = 0
    """Highest window that any start of the ranks acked; above `acked_step` while windows are trained again."""
    samples_waiting: Total | None = None
    """Samples in the store that no acked window contains."""
    samples_replayed: Total | None = None
    """Training samples in windows that were acked again after a way back to a checkpoint, once for each time. Dead
    letters in them count, held-out samples do not. Of all starts of the ranks that this database knows."""
    samples_applied_twice: Total | None = None
    """`AuditReply.trained_twice`."""
    samples_missing: Total | None = None
    """`AuditReply.missing`."""
    lost_work_seconds: Seconds | None = None
    """What the ranks took to train windows again, by their own clock, since this service started."""
    goodput_ratio: Ratio | None = None
    """Seconds in which windows were trained for the first time, by the ranks' own clock, to all seconds that passed
    from the first start of the ranks in this service's life to now, or to the last step of a complete job."""


class MetricsRequest(Message, frozen=True, kw_only=True):
    """Ask for the training metrics of steps > `after_step`."""

    after_step: int = 0
    limit: int = 1000


class StepMetrics(Message, frozen=True, kw_only=True):
    """Metrics of one window; a replay overwrites."""

    step: int
    """The window's number."""
    values: dict[str, float]
    training_step: int = 0
    """Optimizer steps made once it was done: what people call its step."""
    evaluation: bool = False


class MetricsReply(Message, frozen=True, kw_only=True):
    """In step order."""

    steps: tuple[StepMetrics, ...]


class AuditReply(Message, frozen=True, kw_only=True):
    """Promise 3 and 7, from the ledger and the store itself."""

    trained_once: int
    evaluated_once: int = 0
    """Uses of held-out samples that were measured once."""
    trained_twice: int
    """Sequence numbers of both kinds that were used more than once."""
    missing: int
    """Sequence numbers of both kinds up to the durable step that were neither used nor are dead."""
    dead_lettered: int
    resident_objects: int
    resident_bytes: int
    live_leases: int
