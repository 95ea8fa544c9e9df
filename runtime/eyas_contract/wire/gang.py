"""Messages that make and close an incarnation of the ranks, and the one-line files that supervisors leave.

Rank 0 reconciles, the others join; supervisors report exits, watch for closed incarnations, and ask for a drain. The
supervisors of all other roles report that they started their child again.
"""

from typing import Final, Literal

from eyas_contract.ids import Incarnation
from eyas_contract.wire.checkpoints import PresentedCheckpoint
from eyas_contract.wire.common import Count, Fingerprint, Message


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
    time: float = 0.0
    """Unix seconds at which the life of the pod's ranks ended, the same for all of them; 0: now."""
    siblings: tuple[str, ...] = ()
    """The other processes of that life; they are gone, too."""
    leaving: bool = False
    """The pod goes, too: its end is the operator's incident, and none is opened here."""


class RestartRequest(Message, frozen=True, kw_only=True):
    """A supervisor had to start its only child again. Sent when the child ended, and again when it was ready.

    One incident a restart: it is known by role, index and `time`, so repetitions change nothing.
    """

    role: Literal["metadata", "store-master", "store-node", "producer"]
    index: Count
    serial: Count
    """Ordinal of the pod."""
    time: float
    """Unix seconds at which the child ended."""
    reason: str
    ready: float = 0.0
    """Unix seconds at which a later child was ready; 0 before."""


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


KILLED_WITH_GANG: Final = "KilledWithGang"
"""Class of a pod that leaves because ranks of other pods failed: the cause is in another pod's line."""
OUT_OF_MEMORY: Final = "OutOfMemory"
"""Class of a pod in which the kernel killed a process because the container's memory limit was reached."""


class Termination(Message, frozen=True, kw_only=True):
    """The one JSON line of a termination message."""

    exit_code: int
    klass: str
    message: str
    incarnation: str = ""
    step: int = 0
