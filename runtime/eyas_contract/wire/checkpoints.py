"""Messages about checkpoints, and the service's state that a manifest carries.

`CheckpointState` outlives a process and a release: it is read back from manifests that were written long ago, so a
new field needs a default.
"""

from typing import Literal

from eyas_contract.ids import Incarnation, JobUid
from eyas_contract.wire.common import Message
from eyas_contract.wire.inputs import Inputs


class Verdict(Message, frozen=True, kw_only=True):
    """A sample that the ranks gave zero weight, by agreement of all of them, before the optimizer step."""

    sequence: int
    step: int
    reason: str


class DeadLetter(Message, frozen=True, kw_only=True):
    """One sample that is in no weights, and why."""

    sequence: int
    step: int
    reason: str
    source: Literal["producer", "rank", "prepare"]


class KnownCheckpoint(Message, frozen=True, kw_only=True):
    """A checkpoint whose commit the service recorded."""

    directory: str
    step: int
    store_epoch: int
    manifest_digest: str
    receipt: str


class CheckpointsReply(Message, frozen=True, kw_only=True):
    """All recorded checkpoints, newest first."""

    known: tuple[KnownCheckpoint, ...]


class CheckpointState(Message, frozen=True, kw_only=True):
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
    training_step: int = 0
    """Optimizer steps in it; `step` counts windows, those of evaluations included. 0 in old records."""


class Best(Message, frozen=True, kw_only=True):
    """The checkpoint after the evaluation round with the lowest loss so far."""

    directory: str
    step: int
    """Window after which it was written: the last one of that round."""
    training_step: int
    """Optimizer steps in it."""
    eval_loss: float


class EvaluationPoint(Message, frozen=True, kw_only=True):
    """One finished evaluation round."""

    step: int
    """Its last window."""
    training_step: int
    """Optimizer steps made before it."""
    eval_loss: float


class EvaluationState(Message, frozen=True, kw_only=True):
    """What the ranks know of evaluations as of a step: part of the state that a checkpoint holds."""

    points: tuple[EvaluationPoint, ...] = ()
    """Every finished round, in order."""
    best: Best | None = None
    sums: tuple[float, ...] = ()
    """Numerators and denominators of the round under way, over all ranks; empty between rounds."""
    num_tokens: int = 0
    """Tokens of its live samples so far."""
    num_supervised: int = 0
    num_live: int = 0


class PresentedCheckpoint(Message, frozen=True, kw_only=True):
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
    evaluation: EvaluationState | None = None
    """None: the job holds nothing out."""


class CheckpointCommitRequest(Message, frozen=True, kw_only=True):
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
    best: Best | None = None
    """As of this step; its directory may be this one."""


class CheckpointCommitReply(Message, frozen=True, kw_only=True):
    """The receipt, to be stored beside the manifest."""

    receipt: str
    garbage: tuple[str, ...]
    """Directories that rank 0 may delete now."""
