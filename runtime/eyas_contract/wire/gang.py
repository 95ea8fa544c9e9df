"""Messages that make and close an incarnation of the ranks, and the one-line files that supervisors leave.

Rank 0 reconciles, the others join; supervisors report exits, watch for closed incarnations, and ask for a drain.
"""

from eyas_contract.ids import Incarnation
from eyas_contract.wire.checkpoints import PresentedCheckpoint
from eyas_contract.wire.common import Fingerprint, Message


class ReconcileRequest(Message, frozen=True, kw_only=True):
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


class ReconcileReply(Message, frozen=True, kw_only=True):
    """The new incarnation. Rank 0 loads `checkpoint_step` (0: initial weights) and trains on."""

    incarnation: Incarnation
    store_epoch: int
    checkpoint_step: int
    checkpoint_directory: str
    receipt: str
    """Receipt of the presented checkpoint, to be stored beside its manifest if it is missing there."""
    total_steps: int
    """0 while not prepared."""


class JoinRequest(Message, frozen=True, kw_only=True):
    """Made by every rank but 0: wait for the incarnation to join."""

    attempt: int
    rank: int
    process: str
    wait_seconds: float = 0.0


class JoinReply(Message, frozen=True, kw_only=True):
    """None: no open incarnation yet."""

    incarnation: Incarnation | None
    checkpoint_step: int = 0
    checkpoint_directory: str = ""


class ExitRequest(Message, frozen=True, kw_only=True):
    """A supervisor reports the exit of its child; an open incarnation it belonged to is closed."""

    attempt: int
    rank: int
    process: str
    code: int
    """Exit code, or -signal."""
    reason: str = ""


class WatchRequest(Message, frozen=True, kw_only=True):
    """A supervisor asks whether its children's incarnation was closed."""

    attempt: int
    processes: tuple[str, ...]
    wait_seconds: float = 0.0


class WatchReply(Message, frozen=True, kw_only=True):
    """The named processes that belong to a closed incarnation and must be killed and started again."""

    closed: tuple[str, ...]


class DrainRequest(Message, frozen=True, kw_only=True):
    """A consumer pod was asked to stop: name a boundary, checkpoint there, exit 75."""

    attempt: int
    reason: str


class Child(Message, frozen=True, kw_only=True):
    """One live child of a supervisor, in `children.json`."""

    role: str
    index: int
    pid: int
    restart: int
    process: str


class Termination(Message, frozen=True, kw_only=True):
    """The one JSON line of a termination message."""

    exit_code: int
    klass: str
    message: str
    incarnation: str = ""
    step: int = 0
