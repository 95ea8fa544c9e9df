"""Ports of the training loop: where orders come from, where samples come from, what is trained, how ranks talk.

The loop (`loop`) knows only these. Shipped adapters: orders from the metadata service (`orders`), samples from the
feature store (`data`), the EAGLE3 trainer (`draft_trainer`) and the fake one (`fake`), groups over gloo/nccl
(`torch_group`), a plain socket and a single process (`group`). `colocated` brings its own orders and samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, Protocol, TypeVar

from eyas_contract import wire
from eyas_contract.refs import SampleRef
from eyas_runtime.checkpoint.pieces import Piece
from eyas_runtime.checkpoint.reader import CheckpointReader

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
S_contra = TypeVar("S_contra", contravariant=True)


class Code(IntEnum):
    """What the ranks agree on about one place of a window; one byte, merged by maximum."""

    FINE = 0
    NOT_FINITE = 1
    OTHER_SHAPES = 2
    BAD_TOKENS = 3
    LOSS_NOT_FINITE = 4
    MISSING = 255
    """Not there yet: its holder waits for a new capture."""


REASONS: Mapping[Code, str] = {
    Code.NOT_FINITE: "its features hold values that are not finite",
    Code.OTHER_SHAPES: "its tensors have other names, shapes or dtypes than its ref says",
    Code.BAD_TOKENS: "its token ids or masks contradict the model",
    Code.LOSS_NOT_FINITE: "its loss is not finite while the weights are",
}
"""Reason of a verdict, as the dead-letter list shows it."""


class OrderSource(Protocol):
    """Used by rank 0 alone."""

    def next(self, ordinal: int, *, wait_seconds: float) -> wire.Order | None:
        """The `ordinal`-th order (0, 1, ...), or None when there is none within about `wait_seconds`.

        Raises `Closed`, `Fenced`.
        """
        ...

    def ack(self, request: wire.AckRequest) -> None:
        """Say that a window is in the weights. Returns at once; raises what an earlier ack met."""
        ...

    def commit_checkpoint(self, request: wire.CheckpointCommitRequest) -> wire.CheckpointCommitReply:
        """The single commit point; called from the checkpoint thread."""
        ...

    def close(self) -> None:
        """Deliver what is queued, then stop."""
        ...


class FeatureSource(Protocol[S_co]):
    """Where one rank's samples come from. `get` is called from several threads, the others from one."""

    def get(self, ref: SampleRef) -> S_co:
        """The verified sample behind `ref`, decoded, in memory of its own.

        Raises `NotReadable` or `Corrupt` (the sample is lost) and `Transient` (repeat).
        """
        ...

    def report_lost(self, samples: Sequence[wire.LostSample]) -> None:
        """Say that samples must be captured again. Raises `Closed`, `Fenced`, and `Transient` to be asked again."""
        ...

    def current(self, step: int, version: int, sequences: Sequence[int], *, wait_seconds: float) -> wire.RefsReply:
        """Present refs of places of a sealed window.

        Raises `Closed` when the window changed, `Fenced`, and `Transient` to be asked again.
        """
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch(Generic[S]):
    """One forward of one rank. Places without a sample (holes, padding, verdicts) weigh nothing."""

    places: tuple[int | None, ...]
    """Indices into the window; None is padding."""
    samples: tuple[S | None, ...]
    last: bool
    """The window's last: gradients are reduced over the ranks in its backward."""


class Trainer(Protocol[S]):
    """The model, its optimizer and their state on one rank. Every method is called by all ranks in the same order."""

    @property
    def kind(self) -> str:
        """`eagle3` or `fake`: goes into the manifest, and must be equal to load it."""
        ...

    def describe(self) -> dict[str, int | float | str | bool]:
        """What a reader of a checkpoint needs to build the model."""
        ...

    def initialise(self) -> None:
        """Weights of step 0: a function of the job alone, whatever the world size."""
        ...

    def load(self, reader: CheckpointReader) -> None:
        """This rank's slices of a verified checkpoint. Raises `Corrupt` where it does not fit."""
        ...

    def inspect(self, ref: SampleRef, sample: S) -> Code:
        """Judge a sample by its content alone, before it is trained. Any thread."""
        ...

    def begin(self, step: int, places: int) -> None:
        """Start (or start again) the window of `step`: forget gradients and counts."""
        ...

    def accumulate(self, batch: MicroBatch[S], denominator: float) -> tuple[int, ...]:
        """Forward and backward; adds to gradients and counts. Returns the places whose loss is not finite."""
        ...

    def begin_evaluation(self, places: int) -> None:
        """Start (or start again) an evaluation window: forget counts; gradients and generators are left alone."""
        ...

    def evaluate(self, batch: MicroBatch[S], denominator: float) -> tuple[int, ...]:
        """Forward only; adds to counts. Changes nothing that a checkpoint holds. Returns places as `accumulate`."""
        ...

    def totals(self) -> tuple[float, ...]:
        """This rank's numerators and denominators so far; the same length on every rank and step."""
        ...

    def metrics(self, totals: Sequence[float], denominator: float) -> dict[str, float]:
        """Metrics from totals that were added over all ranks."""
        ...

    def healthy(self) -> bool:
        """Whether every weight this rank holds is finite."""
        ...

    def apply(self, step: int) -> dict[str, float]:
        """Reduce, clip, and move the weights. Returns learning_rate, grad_norm. Raises `UserError` on divergence."""
        ...

    def pieces(self) -> Sequence[Piece]:
        """Copies of everything a checkpoint holds on this rank (weights, optimizer), in host memory."""
        ...
