"""Messages between the roles and the metadata service, and the one-line files that supervisors leave.

All are JSON, typed, and bounded. One module per speaker: `capture` (producers), `inputs` (`prepare`), `training` and
`checkpoints` (ranks), `gang` (rank 0 and supervisors), `status` (readers). `common` is what they share, `endpoints`
names every call, `codec` turns messages into bytes and back. Users write `wire.X`: every public name is here.
"""

from eyas_contract.wire.capture import (
    CaptureFailRequest,
    CaptureFailure,
    CaptureLease,
    CommitReply,
    CommitRequest,
    LeaseReply,
    LeaseRequest,
    RegisterReply,
    RegisterRequest,
    RenewReply,
    RenewRequest,
    ReturnRequest,
)
from eyas_contract.wire.checkpoints import (
    CheckpointCommitReply,
    CheckpointCommitRequest,
    CheckpointsReply,
    CheckpointState,
    DeadLetter,
    KnownCheckpoint,
    PresentedCheckpoint,
    Verdict,
)
from eyas_contract.wire.codec import decode, encode
from eyas_contract.wire.common import (
    STORE_EPOCH_HEADER,
    WAIT_SECONDS_MAX,
    Count,
    Digest,
    Empty,
    Fingerprint,
    Holder,
    Message,
    Name,
    Problem,
    RoleName,
)
from eyas_contract.wire.endpoints import (
    ACK,
    AUDIT,
    CAPTURE_FAIL,
    CHECKPOINT_COMMIT,
    CHECKPOINTS,
    COMMIT,
    DRAIN,
    ENDPOINTS,
    EXIT,
    HEARTBEAT,
    JOIN,
    LEASE,
    LOST,
    METRICS,
    ORDER,
    PREPARE,
    PREPARE_COMMIT,
    PREPARED,
    RECONCILE,
    REFS,
    REGISTER,
    RENEW,
    RESTART,
    RETURN,
    STATUS,
    WATCH,
    Endpoint,
    Q,
    R,
)
from eyas_contract.wire.gang import (
    Child,
    DrainRequest,
    ExitRequest,
    JoinReply,
    JoinRequest,
    ReconcileReply,
    ReconcileRequest,
    RestartRequest,
    Termination,
    WatchReply,
    WatchRequest,
)
from eyas_contract.wire.inputs import (
    Inputs,
    PrepareCommitRequest,
    Prepared,
    PreparedReply,
    PreparedRequest,
    PrepareReply,
    PrepareRequest,
)
from eyas_contract.wire.status import AuditReply, Incident, MetricsReply, MetricsRequest, StatusReply, StepMetrics
from eyas_contract.wire.training import (
    AckRequest,
    HeartbeatRequest,
    LostRequest,
    LostSample,
    Order,
    OrderReply,
    OrderRequest,
    RefsReply,
    RefsRequest,
    WindowEntry,
)

__all__ = [
    "ACK", "AUDIT", "CAPTURE_FAIL", "CHECKPOINTS", "CHECKPOINT_COMMIT", "COMMIT", "DRAIN", "ENDPOINTS", "EXIT",
    "HEARTBEAT", "JOIN", "LEASE", "LOST", "METRICS", "ORDER", "PREPARE", "PREPARED", "PREPARE_COMMIT", "RECONCILE",
    "REFS", "REGISTER", "RENEW", "RESTART", "RETURN", "STATUS", "STORE_EPOCH_HEADER", "WAIT_SECONDS_MAX", "WATCH",
    "AckRequest", "AuditReply", "CaptureFailRequest", "CaptureFailure", "CaptureLease", "CheckpointCommitReply",
    "CheckpointCommitRequest", "CheckpointState", "CheckpointsReply", "Child", "CommitReply", "CommitRequest", "Count",
    "DeadLetter", "Digest", "DrainRequest", "Empty", "Endpoint", "ExitRequest", "Fingerprint", "HeartbeatRequest",
    "Holder", "Incident", "Inputs", "JoinReply", "JoinRequest", "KnownCheckpoint", "LeaseReply", "LeaseRequest",
    "LostRequest", "LostSample", "Message", "MetricsReply", "MetricsRequest", "Name", "Order", "OrderReply",
    "OrderRequest", "PrepareCommitRequest", "PrepareReply", "PrepareRequest", "Prepared", "PreparedReply",
    "PreparedRequest", "PresentedCheckpoint", "Problem", "Q", "R", "ReconcileReply", "ReconcileRequest",
    "RefsReply", "RefsRequest", "RegisterReply", "RegisterRequest", "RenewReply", "RenewRequest", "RestartRequest",
    "ReturnRequest", "RoleName", "StatusReply", "StepMetrics", "Termination", "Verdict", "WatchReply", "WatchRequest",
    "WindowEntry", "decode", "encode",
]  # fmt: skip
