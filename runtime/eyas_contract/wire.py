"""Messages between the roles and the metadata service, and the one-line files that supervisors leave.

All are JSON, typed, and bounded: `ENDPOINTS` names every call with its path, the roles that may make it, the longest
body and the longest wait. All calls are idempotent: a client repeats the same bytes until it has an answer.
`wait_seconds` asks the service to hold a call until there is news (long poll); it is capped by `WAIT_SECONDS_MAX`.
"""

from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec

from eyas_contract.errors import UserError
from eyas_contract.ids import Incarnation, JobUid, LeaseToken
from eyas_contract.refs import PromptTask, SampleRef
from eyas_contract.states import Gang, Phase

WAIT_SECONDS_MAX: Final = 20.0
STORE_EPOCH_HEADER: Final = "Eyas-Store-Epoch"
"""Sent by both sides; each refuses a lower one than it has seen."""
RoleName = Literal["producer", "consumer", "reader"]


Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
"""A small number that is never negative; checked when a message is decoded."""
Name = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,64}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,200}\Z")]
"""Printable ASCII without spaces: anything else, a zero byte above all, has a length of its own in a database."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base: immutable, keyword-only, unknown fields refused."""


class Empty(_Message, frozen=True, kw_only=True):
    """No content."""


class Problem(_Message, frozen=True, kw_only=True):
    """Body of every error answer."""

    kind: Literal["UserError", "Transient", "Conflict", "Fenced", "Closed", "Unauthenticated", "Bug"]
    message: str
    retry_after_seconds: float = 0.0


# --- producers -------------------------------------------------------------------------------------------------


class Holder(_Message, frozen=True, kw_only=True):
    """Who holds a lease. Of one index, the highest (ordinal, restart) is the live one; lower ones are fenced."""

    index: Count
    ordinal: Count
    restart: Count


class Fingerprint(_Message, frozen=True, kw_only=True):
    """What fixes the bits of a capture or of a training step: device model, ISA, libraries, options, threads."""

    facts: dict[str, str]
    digest: Digest


class RegisterRequest(_Message, frozen=True, kw_only=True):
    """First call of a producer process: frees at once what its predecessor held."""

    holder: Holder
    fingerprint: Fingerprint
    previous: "PreviousEnd | None" = None
    """Of the process that this one replaces in its pod."""


class PreviousEnd(_Message, frozen=True, kw_only=True):
    """How and when the predecessor of a restarted process ended; becomes an incident."""

    time: float
    """Unix seconds."""
    reason: str


class RegisterReply(_Message, frozen=True, kw_only=True):
    """What the service knows."""

    job_uid: JobUid
    store_epoch: int
    prepared: bool


class PrepareRequest(_Message, frozen=True, kw_only=True):
    """Ask whether to run `prepare`. One producer at a time is told to."""

    holder: Holder
    wait_seconds: float = 0.0


class PrepareReply(_Message, frozen=True, kw_only=True):
    """`done`: fetch it; `yours`: run it and commit it; `wait`: somebody else does."""

    verdict: Literal["done", "yours", "wait"]


class Inputs(_Message, frozen=True, kw_only=True):
    """Digests of everything that fixes what is trained; compared by every role at its start."""

    data: str
    tokenizer: str
    template: str
    target: str


class Prepared(_Message, frozen=True, kw_only=True):
    """Result of `prepare`, written once."""

    inputs: Inputs
    prompt_count: int
    file_indices: str
    """base64 of little-endian uint16[N]: which data file a prompt is in."""
    offsets: str
    """base64 of little-endian uint64[N]: byte offset of its line (or index of its feature file)."""
    token_counts: str
    """base64 of little-endian uint32[N]: tokens after the cut to max_length."""
    supervised_counts: str
    """base64 of little-endian uint32[N]: supervised positions, the last position excluded."""
    draft_to_target: str
    """base64 of little-endian int64[D]: d2t as offsets; d2t[i] + i is the target id of draft id i."""
    target_vocab_size: int
    hidden_size: int
    """Hidden size H of the target: one token's features are 4 H elements of the target dtype."""
    bytes_per_token: int
    """Bytes of one token's features, for reservations."""
    bytes_per_sample: int
    """Fixed bytes of one blob (header, ids are per token), for reservations."""
    truncated_prompts: int = 0
    empty_prompts: tuple[int, ...] = ()
    """Prompt indices with no supervised token: dead letters from the start."""


class PrepareCommitRequest(_Message, frozen=True, kw_only=True):
    """The first commit wins; a later one must be equal or is refused with `UserError`."""

    holder: Holder
    prepared: Prepared


class PreparedRequest(_Message, frozen=True, kw_only=True):
    """Ask for the prepared inputs, waiting for them if need be."""

    wait_seconds: float = 0.0


class PreparedReply(_Message, frozen=True, kw_only=True):
    """None: not there yet."""

    prepared: Prepared | None


class LeaseRequest(_Message, frozen=True, kw_only=True):
    """Ask for one capture group. The same `request_id` gives the same lease again."""

    holder: Holder
    request_id: Name
    wait_seconds: float = 0.0


class CaptureLease(_Message, frozen=True, kw_only=True):
    """A whole capture group: every member in sequence order, and which of them to capture."""

    lease_id: str
    token: LeaseToken
    group: int
    tasks: tuple[PromptTask, ...]
    padded_length: int
    """Token length to which every member of the batch is padded: max over ALL members."""
    term_seconds: float
    deadline_seconds: float


class LeaseReply(_Message, frozen=True, kw_only=True):
    """No lease: `finished` (no sequence number will ever need capture again unless lost) or `paused` (why)."""

    lease: CaptureLease | None
    finished: bool = False
    paused: str = ""


class RenewRequest(_Message, frozen=True, kw_only=True):
    """Renew exactly the named leases, once a third of the term."""

    holder: Holder
    lease_ids: tuple[str, ...]


class RenewReply(_Message, frozen=True, kw_only=True):
    """The named leases that are still this holder's."""

    alive: tuple[str, ...]


class CommitRequest(_Message, frozen=True, kw_only=True):
    """Commit refs of captured members. Repeating it is harmless while the objects are the same."""

    holder: Holder
    lease_id: str
    token: LeaseToken
    refs: tuple[SampleRef, ...]


class CommitReply(_Message, frozen=True, kw_only=True):
    """Sequence numbers that became ready by this lease (now or in an earlier repetition)."""

    accepted: tuple[int, ...]


class CaptureFailure(_Message, frozen=True, kw_only=True):
    """A member that could not be captured."""

    sequence: int
    reason: str
    poison: bool
    """True: a reproducible error of the content. False: try again."""


class CaptureFailRequest(_Message, frozen=True, kw_only=True):
    """Report members that could not be captured; the lease ends."""

    holder: Holder
    lease_id: str
    token: LeaseToken
    failures: tuple[CaptureFailure, ...]


class ReturnRequest(_Message, frozen=True, kw_only=True):
    """Give leases back at once (clean shutdown)."""

    holder: Holder
    lease_ids: tuple[str, ...]


# --- consumers -------------------------------------------------------------------------------------------------


class KnownCheckpoint(_Message, frozen=True, kw_only=True):
    """A checkpoint whose commit the service recorded."""

    directory: str
    step: int
    store_epoch: int
    manifest_digest: str
    receipt: str


class CheckpointsReply(_Message, frozen=True, kw_only=True):
    """All recorded checkpoints, newest first."""

    known: tuple[KnownCheckpoint, ...]


class DeadLetter(_Message, frozen=True, kw_only=True):
    """One sample that is in no weights, and why."""

    sequence: int
    step: int
    reason: str
    source: Literal["producer", "rank", "prepare"]


class CheckpointState(_Message, frozen=True, kw_only=True):
    """The service's state as of step C, carried inside the manifest, so that a lost volume can be rebuilt."""

    job_uid: JobUid
    store_epoch: int
    step: int
    inputs: Inputs | None
    dead_letters: tuple[DeadLetter, ...]
    """Of windows <= C, with the verdicts of their ranks; those of `prepare` follow from the inputs and are left out."""
    capture_fingerprint: str
    inexact_reasons: tuple[str, ...]
    generation_floor: int
    attempt: int
    samples_recaptured: int = 0
    training_fingerprint: str = ""
    world_size: int = 0


class PresentedCheckpoint(_Message, frozen=True, kw_only=True):
    """The newest checkpoint that rank 0 verified."""

    directory: str
    step: int
    store_epoch: int
    attempt: int
    incarnation: Incarnation
    manifest_digest: str
    receipt: str
    """Empty when it was never stored; then the service must know the manifest digest."""
    state: CheckpointState


class ReconcileRequest(_Message, frozen=True, kw_only=True):
    """`reconcile_on_restart`: made once by global rank 0 at every start of the ranks, the first one included."""

    attempt: int
    world_size: int
    process: str
    fingerprint: Fingerprint
    checkpoint: PresentedCheckpoint | None
    refused: tuple[str, ...] = ()
    """Directories that failed verification (digest mismatch, missing file), for the incident list."""
    listed: tuple[str, ...] = ()
    """Every checkpoint directory that was found, so that those without a commit become garbage in the end."""


class ReconcileReply(_Message, frozen=True, kw_only=True):
    """The new incarnation. Rank 0 loads `checkpoint_step` (0: initial weights) and trains on."""

    incarnation: Incarnation
    store_epoch: int
    checkpoint_step: int
    checkpoint_directory: str
    receipt: str
    """Receipt of the presented checkpoint, to be stored beside its manifest if it is missing there."""
    total_steps: int
    """0 while not prepared."""


class JoinRequest(_Message, frozen=True, kw_only=True):
    """Made by every rank but 0: wait for the incarnation to join."""

    attempt: int
    rank: int
    process: str
    wait_seconds: float = 0.0


class JoinReply(_Message, frozen=True, kw_only=True):
    """None: no open incarnation yet."""

    incarnation: Incarnation | None
    checkpoint_step: int = 0
    checkpoint_directory: str = ""


class OrderRequest(_Message, frozen=True, kw_only=True):
    """Ask for the `ordinal`-th order (0, 1, ...) of this incarnation; a repeat gets the same answer."""

    incarnation: Incarnation
    ordinal: int
    wait_seconds: float = 0.0


class WindowEntry(_Message, frozen=True, kw_only=True):
    """One place of a window: a live sample, or a hole (`ref` None)."""

    sequence: int
    ref: SampleRef | None


class Order(_Message, frozen=True, kw_only=True):
    """What all ranks do next."""

    ordinal: int
    kind: Literal["train", "checkpoint", "stop"]
    step: int
    """train: the optimizer step w + 1 that this window makes; checkpoint, stop: the step at which."""
    version: int = 0
    entries: tuple[WindowEntry, ...] = ()
    """Exactly the window's places in sequence order; the last window may be short."""
    prefetch: tuple[SampleRef, ...] = ()
    """Samples of the next window that are ready already; a hint."""
    last: bool = False
    """checkpoint: stop after it."""
    reason: Literal["", "schedule", "pressure", "drain", "complete"] = ""
    state: CheckpointState | None = None
    """checkpoint: goes into the manifest."""


class OrderReply(_Message, frozen=True, kw_only=True):
    """None: nothing due yet."""

    order: Order | None


class Verdict(_Message, frozen=True, kw_only=True):
    """A sample that the ranks gave zero weight, by agreement of all of them, before the optimizer step."""

    sequence: int
    step: int
    reason: str


class AckRequest(_Message, frozen=True, kw_only=True):
    """Window `step` is in the ranks' weights. Progress, not durability."""

    incarnation: Incarnation
    step: int
    version: int
    verdicts: tuple[Verdict, ...]
    metrics: dict[str, float]
    """loss, learning_rate, grad_norm, acc_<k>, acceptance_<k>, accepted_length, tokens, step_seconds."""


class LostSample(_Message, frozen=True, kw_only=True):
    """A sample whose bytes a rank could not read or did not believe."""

    sequence: int
    generation: int
    reason: str


class LostRequest(_Message, frozen=True, kw_only=True):
    """Report lost samples; a report about an older generation than the row's changes nothing."""

    incarnation: Incarnation
    samples: tuple[LostSample, ...]


class RefsRequest(_Message, frozen=True, kw_only=True):
    """Ask for the present refs of places of a sealed window (after a loss), waiting until all are ready."""

    incarnation: Incarnation
    step: int
    version: int
    sequences: tuple[int, ...]
    wait_seconds: float = 0.0


class RefsReply(_Message, frozen=True, kw_only=True):
    """`pending` is empty when all are there."""

    refs: tuple[SampleRef, ...]
    pending: tuple[int, ...]


class HeartbeatRequest(_Message, frozen=True, kw_only=True):
    """Sent by rank 0's watcher with the work counters of every rank, once a few seconds.

    The hang lease is renewed only when every counter moved since the last renewal, or nothing is due.
    """

    incarnation: Incarnation
    rank: int
    counter: int
    """Micro-batches, shards loaded or saved so far by this rank."""
    phase: Literal["starting", "idle", "working", "saving"]


class CheckpointCommitRequest(_Message, frozen=True, kw_only=True):
    """The single commit point of a checkpoint."""

    incarnation: Incarnation
    attempt: int
    store_epoch: int
    step: int
    directory: str
    manifest_digest: str
    verdicts: tuple[Verdict, ...]
    """All zero-weight verdicts of windows since the parent checkpoint."""
    weights_sha256: str
    """Over names, dtypes, shapes and bytes of the trainable tensors in name order."""
    world_size: int
    nbytes: int


class CheckpointCommitReply(_Message, frozen=True, kw_only=True):
    """The receipt, to be stored beside the manifest."""

    receipt: str
    garbage: tuple[str, ...]
    """Directories that rank 0 may delete now."""


class ExitRequest(_Message, frozen=True, kw_only=True):
    """A supervisor reports the exit of its child; an open incarnation it belonged to is closed."""

    attempt: int
    rank: int
    process: str
    code: int
    """Exit code, or -signal."""
    reason: str = ""


class WatchRequest(_Message, frozen=True, kw_only=True):
    """A supervisor asks whether its children's incarnation was closed."""

    attempt: int
    processes: tuple[str, ...]
    wait_seconds: float = 0.0


class WatchReply(_Message, frozen=True, kw_only=True):
    """The named processes that belong to a closed incarnation and must be killed and started again."""

    closed: tuple[str, ...]


class DrainRequest(_Message, frozen=True, kw_only=True):
    """A consumer pod was asked to stop: name a boundary, checkpoint there, exit 75."""

    attempt: int
    reason: str


# --- readers ---------------------------------------------------------------------------------------------------


class Incident(_Message, frozen=True, kw_only=True):
    """Something that went wrong and what it cost."""

    klass: str
    """PodFailed, ChildExited, Hang, SampleLost, CheckpointRefused, LeaseExpired, MetadataRestored, ..."""
    unit: str
    message: str
    detected: float
    """Unix seconds."""
    step: int = 0
    recovered: float = 0.0
    """Unix seconds of the first optimizer step (or capture) after it; 0 while open."""
    windows_replayed: int = 0


class StatusReply(_Message, frozen=True, kw_only=True):
    """All that operators, people and tests see of a running job."""

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
    samples_trained: int
    """Samples inside windows <= acked_step that are not dead."""
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


class MetricsRequest(_Message, frozen=True, kw_only=True):
    """Ask for the training metrics of steps > `after_step`."""

    after_step: int = 0
    limit: int = 1000


class StepMetrics(_Message, frozen=True, kw_only=True):
    """Metrics of one step; a replay overwrites."""

    step: int
    values: dict[str, float]


class MetricsReply(_Message, frozen=True, kw_only=True):
    """In step order."""

    steps: tuple[StepMetrics, ...]


class AuditReply(_Message, frozen=True, kw_only=True):
    """Promise 3 and 7, from the ledger and the store itself."""

    trained_once: int
    trained_twice: int
    missing: int
    dead_lettered: int
    resident_objects: int
    resident_bytes: int
    live_leases: int


# --- files of supervisors ----------------------------------------------------------------------------------------


class Child(_Message, frozen=True, kw_only=True):
    """One live child of a supervisor, in `children.json`."""

    role: str
    index: int
    pid: int
    restart: int
    process: str


class Termination(_Message, frozen=True, kw_only=True):
    """The one JSON line of a termination message."""

    exit_code: int
    klass: str
    message: str
    incarnation: str = ""
    step: int = 0


Q = TypeVar("Q", bound=_Message)
"""Request of a call."""
R = TypeVar("R", bound=_Message)
"""Reply of a call."""


class Endpoint(msgspec.Struct, Generic[Q, R], frozen=True):
    """One call of the API: `Q` is asked, `R` is answered."""

    path: str
    roles: frozenset[RoleName]
    request: type[Q]
    reply: type[R]
    body_bytes_max: int = 64 << 10


_P: Final[frozenset[RoleName]] = frozenset({"producer"})
_C: Final[frozenset[RoleName]] = frozenset({"consumer"})
_PC: Final[frozenset[RoleName]] = frozenset({"producer", "consumer"})
_R: Final[frozenset[RoleName]] = frozenset({"reader", "consumer"})
_LARGE: Final = 64 << 20
"""Prepared inputs: 18 bytes a prompt in base64 are 24, so 2.6 million prompts."""
_WINDOW: Final = 4 << 20
"""Windows and batches of refs: about 1 KiB a ref."""

REGISTER: Final = Endpoint("/v1/register", _P, RegisterRequest, RegisterReply)
PREPARE: Final = Endpoint("/v1/prepare", _P, PrepareRequest, PrepareReply)
PREPARE_COMMIT: Final = Endpoint("/v1/prepare-commit", _P, PrepareCommitRequest, Empty, _LARGE)
PREPARED: Final = Endpoint("/v1/prepared", _PC, PreparedRequest, PreparedReply)
LEASE: Final = Endpoint("/v1/lease", _P, LeaseRequest, LeaseReply)
RENEW: Final = Endpoint("/v1/renew", _P, RenewRequest, RenewReply)
COMMIT: Final = Endpoint("/v1/commit", _P, CommitRequest, CommitReply, _WINDOW)
CAPTURE_FAIL: Final = Endpoint("/v1/capture-fail", _P, CaptureFailRequest, Empty)
RETURN: Final = Endpoint("/v1/return", _P, ReturnRequest, Empty)
CHECKPOINTS: Final = Endpoint("/v1/checkpoints", _R, Empty, CheckpointsReply)
RECONCILE: Final = Endpoint("/v1/reconcile", _C, ReconcileRequest, ReconcileReply, _WINDOW)
JOIN: Final = Endpoint("/v1/join", _C, JoinRequest, JoinReply)
ORDER: Final = Endpoint("/v1/order", _C, OrderRequest, OrderReply)
ACK: Final = Endpoint("/v1/ack", _C, AckRequest, Empty, _WINDOW)
LOST: Final = Endpoint("/v1/lost", _C, LostRequest, Empty, _WINDOW)
REFS: Final = Endpoint("/v1/refs", _C, RefsRequest, RefsReply, _WINDOW)
HEARTBEAT: Final = Endpoint("/v1/heartbeat", _C, HeartbeatRequest, Empty)
CHECKPOINT_COMMIT: Final = Endpoint(
    "/v1/checkpoint-commit", _C, CheckpointCommitRequest, CheckpointCommitReply, _WINDOW
)
EXIT: Final = Endpoint("/v1/exit", _C, ExitRequest, Empty)
WATCH: Final = Endpoint("/v1/watch", _C, WatchRequest, WatchReply)
DRAIN: Final = Endpoint("/v1/drain", _C, DrainRequest, Empty)
STATUS: Final = Endpoint("/v1/status", _R, Empty, StatusReply)
METRICS: Final = Endpoint("/v1/metrics", _R, MetricsRequest, MetricsReply)
AUDIT: Final = Endpoint("/v1/audit", _R, Empty, AuditReply)

ENDPOINTS: Final[tuple[Endpoint[Any, Any], ...]] = (
    REGISTER, PREPARE, PREPARE_COMMIT, PREPARED, LEASE, RENEW, COMMIT, CAPTURE_FAIL, RETURN, CHECKPOINTS, RECONCILE,
    JOIN, ORDER, ACK, LOST, REFS, HEARTBEAT, CHECKPOINT_COMMIT, EXIT, WATCH, DRAIN, STATUS, METRICS, AUDIT,
)  # fmt: skip


M = TypeVar("M", bound=msgspec.Struct)


def encode(message: msgspec.Struct) -> bytes:
    """JSON bytes of a message."""
    return msgspec.json.encode(message)


def decode(raw: bytes, kind: type[M], *, bytes_max: int) -> M:
    """Decode and validate. Raises `UserError` naming the field; `bytes_max` is checked before parsing."""
    if len(raw) > bytes_max:
        raise UserError(f"{kind.__name__} of {len(raw)} bytes is over the limit of {bytes_max}")
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise UserError(f"{kind.__name__} is not valid: {error}") from error
