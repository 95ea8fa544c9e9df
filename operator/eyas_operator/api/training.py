"""What is trained: target, data, draft, optimizer. Everything here fixes the result, so none of it may change later."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from eyas_operator.api.base import Dtype, Model, Path, Seconds, Seed, VolumePath
from eyas_operator.api.checks import Check

WINDOW_SIZE_MAX: Final = 65_536
Threads = Annotated[int, Field(ge=1, le=512)]
Layer = Annotated[int, Field(ge=0, le=1000)]
_ASCENDING: Final = Check(
    message="must be three layer numbers, each above the one before",
    holds=lambda layers: layers[0] < layers[1] < layers[2],
    # Another number of them is told by the bounds of the list.
    cel="size(self) != 3 || (self[0] < self[1] && self[1] < self[2])",
)


class Target(Model):
    """The large model whose hidden states are captured."""

    model: VolumePath
    """Folder of a Hugging Face causal language model: configuration, tokenizer, weights."""
    gguf_file: Path | None = None
    """File inside `model` with the weights, when they are GGUF."""
    dtype: Dtype = Dtype.BFLOAT16
    """Type of the forward pass and of the captured features."""
    capture_layers: Annotated[tuple[Layer, Layer, Layer], _ASCENDING] | None = None
    """The three decoder layers whose outputs are captured. Without it: 1, n/2 - 1 and n - 4."""
    threads: Threads = 1
    """CPU threads of one producer. Part of what fixes the bits of a capture."""


class Data(Model):
    """What is trained on: prompts to capture, or existing feature files."""

    prompts: Annotated[tuple[VolumePath, ...], Field(max_length=1024)] = ()
    """JSONL files; a line is `{"messages": [{"role": ..., "content": ...}]}` or `{"text": ...}`."""
    features: Annotated[tuple[VolumePath, ...], Field(max_length=1024)] = ()
    """Folders of existing feature files in SpecForge's layout. Exclusive with `prompts`."""
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] = 2048
    """Tokens of one sample; longer ones are cut."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Times that every sample is trained, each time in another order."""
    seed: Seed = 42
    """Seed of the order of samples."""
    chat_template: Annotated[str, Field(min_length=1, max_length=65_536)] | None = None
    """Jinja text that replaces the tokenizer's chat template."""
    group_size: Annotated[int, Field(ge=1, le=1024)] = 4
    """Samples captured in one batch. Part of what fixes the bits of a capture."""


class LossNormalisation(StrEnum):
    """What the loss of a window is divided by."""

    ALL_POSITIONS = "AllPositions"
    SUPERVISED = "Supervised"


class DraftVariant(StrEnum):
    """Architecture of the draft."""

    EAGLE3 = "Eagle3"
    EAGLE3_1 = "Eagle3_1"


class Draft(Model):
    """The draft model."""

    vocab_size: Annotated[int, Field(ge=2, le=1_048_576)] = 32_000
    """Tokens the draft can propose: the most frequent ones of the data."""
    steps: Annotated[int, Field(ge=1, le=32)] = 7
    """Length of the unrolled training-time test."""
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Weight of step k of the unrolled test is decay to the power of k."""
    loss_normalisation: LossNormalisation = LossNormalisation.ALL_POSITIONS
    """AllPositions divides by every position of the window, as EAGLE3 does; Supervised by the supervised ones."""
    variant: DraftVariant = DraftVariant.EAGLE3
    initial_from: VolumePath | None = None
    """Folder of an existing draft to start from."""
    seed: Seed = 42
    """Seed of the initial weights."""


class Schedule(StrEnum):
    """Course of the learning rate after the warm-up."""

    COSINE = "Cosine"
    CONSTANT = "Constant"


class Evaluation(Model):
    """Measuring the draft on prompts that are never trained; the best checkpoint is kept beside the newest ones."""

    prompts: Annotated[tuple[VolumePath, ...], Field(min_length=1, max_length=1024)]
    """JSONL files as in `data.prompts`. They change neither the weights nor the draft's vocabulary."""
    every_steps: Annotated[int, Field(ge=1, le=1_000_000)]
    """Optimizer steps between two evaluations; another one follows the last step."""


class Checkpointing(Model):
    """When checkpoints are written."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Longest distance between two. After a restart and under memory pressure they come sooner."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    """The newest ones that are never deleted."""
    deadline_seconds: Seconds = 600
    """A checkpoint that takes longer counts as a hang."""
    allow_restart_from_zero: bool = False
    """Start again at step 0 when every checkpoint is lost, instead of failing."""


class Parallelism(Model):
    """Ranks that one sample is split over, for samples and drafts too large for one; the others split the samples."""

    tensor: Annotated[int, Field(ge=1, le=64)] = 1
    """Ranks that split the heads, the inner width and the vocabulary of the draft; must divide each of them."""
    sequence: Annotated[int, Field(ge=1, le=64)] = 1
    """Ranks that split the positions of a sample."""


class Packing(Model):
    """Samples of unequal lengths end to end in one micro-batch, none of which sees another: no padding.

    What TRL calls `packing` and torchtune `packed`. No sample is cut to fit.
    """

    max_tokens: Annotated[int, Field(ge=8, le=16_777_216)]
    """Tokens of one forward pass on one rank: as many samples as fit; a longer sample is alone. Bounds the memory."""


class Training(Model):
    """Optimizer and windows."""

    window_size: Annotated[int, Field(ge=1, le=WINDOW_SIZE_MAX)] = 64
    """Samples of one optimizer step, over all ranks."""
    micro_batch_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """Samples of one forward pass on one rank, padded to the longest of them. Exclusive with `packing`."""
    packing: Packing | None = None
    """Fill each forward pass up to a number of tokens instead of a number of samples."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-4
    """Peak of the schedule."""
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.015
    """Share of all steps in which the learning rate rises from 0."""
    schedule: Schedule = Schedule.COSINE
    max_grad_norm: Annotated[float, Field(gt=0.0, le=1e6)] = 0.5
    """Gradients are scaled down to this norm."""
    weight_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Of AdamW."""
    max_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Steps after which the run ends. Without it: as many as the epochs need."""
    threads: Threads = 1
    """CPU threads of one rank."""
    dtype: Dtype = Dtype.FLOAT32
    """Type of the computation. Master weights and optimizer state are always float32."""
    deterministic: bool = True
    """Bit-identical resume: no autotuning, fixed threads and seeds."""
    checkpoint: Checkpointing = Checkpointing()
    parallelism: Parallelism = Parallelism()
