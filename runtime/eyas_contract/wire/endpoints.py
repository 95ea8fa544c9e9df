"""Every call of the metadata service: its path, the roles that may make it, both messages, the longest body.

All calls are idempotent: a client repeats the same bytes until it has an answer.
"""

from typing import Any, Final, Generic, TypeVar

import msgspec

from eyas_contract.wire.capture import (
    CaptureFailRequest,
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
from eyas_contract.wire.checkpoints import CheckpointCommitReply, CheckpointCommitRequest, CheckpointsReply
from eyas_contract.wire.common import Empty, Message, RoleName
from eyas_contract.wire.gang import (
    DrainRequest,
    ExitRequest,
    JoinReply,
    JoinRequest,
    ReconcileReply,
    ReconcileRequest,
    RestartRequest,
    WatchReply,
    WatchRequest,
)
from eyas_contract.wire.inputs import PrepareCommitRequest, PreparedReply, PreparedRequest, PrepareReply, PrepareRequest
from eyas_contract.wire.status import AuditReply, MetricsReply, MetricsRequest, StatusReply
from eyas_contract.wire.training import (
    AckRequest,
    HeartbeatRequest,
    LostRequest,
    OrderReply,
    OrderRequest,
    RefsReply,
    RefsRequest,
)

Q = TypeVar("Q", bound=Message)
"""Request of a call."""
R = TypeVar("R", bound=Message)
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
_PS: Final[frozenset[RoleName]] = frozenset({"producer", "store"})
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
RESTART: Final = Endpoint("/v1/restart", _PS, RestartRequest, Empty)
WATCH: Final = Endpoint("/v1/watch", _C, WatchRequest, WatchReply)
DRAIN: Final = Endpoint("/v1/drain", _C, DrainRequest, Empty)
STATUS: Final = Endpoint("/v1/status", _R, Empty, StatusReply)
METRICS: Final = Endpoint("/v1/metrics", _R, MetricsRequest, MetricsReply)
AUDIT: Final = Endpoint("/v1/audit", _R, Empty, AuditReply)

ENDPOINTS: Final[tuple[Endpoint[Any, Any], ...]] = (
    REGISTER, PREPARE, PREPARE_COMMIT, PREPARED, LEASE, RENEW, COMMIT, CAPTURE_FAIL, RETURN, CHECKPOINTS, RECONCILE,
    JOIN, ORDER, ACK, LOST, REFS, HEARTBEAT, CHECKPOINT_COMMIT, EXIT, RESTART, WATCH, DRAIN, STATUS, METRICS, AUDIT,
)  # fmt: skip
