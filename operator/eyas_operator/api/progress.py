"""How far a job is and what came out, as its status shows it: copies of the metadata service's words, for people."""

from dataclasses import dataclass
from typing import Final

from eyas_operator.api.base import CAMEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The metadata service's numbers, as of `observed_time`."""

    __pydantic_config__ = CAMEL

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
    """Samples in the store that the ranks have not trained."""
    lost: int = 0
    """Samples whose features were lost from the store and captured again."""
    replayed: int | None = None
    """Samples trained again after ways back to a checkpoint; absent when not told."""
    applied_twice: int | None = None
    """Samples applied twice along the line of checkpoints: must be 0; absent when not told."""
    missing: int | None = None
    """Samples up to the durable step that are neither trained nor dead: must be 0; absent when not told."""
    lost_work_seconds: str = ""
    """What the ranks took to train windows again, since the service started; a decimal in a string."""
    goodput: str = ""
    """Share of the time in which windows were trained for the first time, since ranks and service started; a decimal in
    a string."""
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

    __pydantic_config__ = CAMEL

    step: int = 0
    """Window that it ends with."""
    directory: str = ""
    """Its folder below the checkpoints' volume."""
    time: str = ""
    """When it was first seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BestCheckpoint:
    """The checkpoint with the lowest loss on held-out prompts."""

    __pydantic_config__ = CAMEL

    step: int
    """Optimizer steps in it."""
    directory: str
    """Its folder below the checkpoints' volume."""
    eval_loss: str
    """A decimal in a string: Kubernetes wants no floats in objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came out."""

    __pydantic_config__ = CAMEL

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


NOT_BEGUN: Final = Progress()
NO_CHECKPOINT: Final = CheckpointStatus()
