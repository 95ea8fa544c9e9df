"""Messages of the ranks while they train: orders, acks, lost samples, new refs for them, heartbeats."""

from typing import Literal

from eyas_contract.ids import Incarnation
from eyas_contract.refs import SampleRef
from eyas_contract.wire.checkpoints import CheckpointState, Verdict
from eyas_contract.wire.common import Message


class OrderRequest(Message, frozen=True, kw_only=True):
    """Ask for the `ordinal`-th order (0, 1, ...) of this incarnation; a repeat gets the same answer."""

    incarnation: Incarnation
    ordinal: int
    wait_seconds: float = 0.0


class WindowEntry(Message, frozen=True, kw_only=True):
    """One place of a window: a live sample, or a hole (`ref` None)."""

    sequence: int
    ref: SampleRef | None


class Order(Message, frozen=True, kw_only=True):
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
    reason: Literal["", "schedule", "pressure", "best", "drain", "complete"] = ""
    state: CheckpointState | None = None
    """checkpoint: goes into the manifest."""


class OrderReply(Message, frozen=True, kw_only=True):
    """None: nothing due yet."""

    order: Order | None


class AckRequest(Message, frozen=True, kw_only=True):
    """Window `step` is in the ranks' weights. Progress, not durability."""

    incarnation: Incarnation
    step: int
    version: int
    verdicts: tuple[Verdict, ...]
    metrics: dict[str, float]
    """loss, learning_rate, grad_norm, acc_<k>, acceptance_<k>, accepted_length, tokens, step_seconds."""


class LostSample(Message, frozen=True, kw_only=True):
    """A sample whose bytes a rank could not read or did not believe."""

    sequence: int
    generation: int
    reason: str


class LostRequest(Message, frozen=True, kw_only=True):
    """Report lost samples; a report about an older generation than the row's changes nothing."""

    incarnation: Incarnation
    samples: tuple[LostSample, ...]


class RefsRequest(Message, frozen=True, kw_only=True):
    """Ask for the present refs of places of a sealed window (after a loss), waiting until all are ready."""

    incarnation: Incarnation
    step: int
    version: int
    sequences: tuple[int, ...]
    wait_seconds: float = 0.0


class RefsReply(Message, frozen=True, kw_only=True):
    """`pending` is empty when all are there."""

    refs: tuple[SampleRef, ...]
    pending: tuple[int, ...]


class HeartbeatRequest(Message, frozen=True, kw_only=True):
    """Sent by rank 0's watcher with the work counters of every rank, once a few seconds.

    The hang lease is renewed only when every counter moved since the last renewal, or nothing is due.
    """

    incarnation: Incarnation
    rank: int
    counter: int
    """Micro-batches, shards loaded or saved so far by this rank."""
    phase: Literal["starting", "idle", "working", "saving"]
