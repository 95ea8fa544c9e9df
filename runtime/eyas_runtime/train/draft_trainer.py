"""`Trainer` of EAGLE3 drafts: windows of captured samples into the weights, over any number of ranks.

Master weights and moments are float32 always. More than one rank, or another compute dtype, goes through FSDP2; one
float32 rank trains the plain module. All ranks run the same collectives in the same order; a micro-batch of holes
still runs, because the others reduce in it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from eyas_contract.errors import UserError
from eyas_contract.refs import SampleRef
from eyas_runtime.checkpoint.pieces import Piece
from eyas_runtime.checkpoint.reader import CheckpointReader
from eyas_runtime.train import draft_state
from eyas_runtime.train.eagle3.batch import Captured, normalise, supervised_count
from eyas_runtime.train.eagle3.config import AUX_LAYERS, DraftConfig, LossConfig
from eyas_runtime.train.eagle3.grid import Grid
from eyas_runtime.train.eagle3.loss import COUNTS, Result
from eyas_runtime.train.eagle3.metrics import metrics, step_counts
from eyas_runtime.train.eagle3.model import Draft
from eyas_runtime.train.eagle3.optim import OptimConfig, make_optimizer, optimizer_step
from eyas_runtime.train.eagle3.parallelize import (
    ParallelConfig,
    forget_gathered,
    make_mesh,
    parallelize,
    set_last_micro_batch,
)
from eyas_runtime.train.eagle3.parameters import initialise
from eyas_runtime.train.eagle3.schedule import learning_rate
from eyas_runtime.train.eagle3.teacher import target_head
from eyas_runtime.train.eagle3.tensor_slices import is_told_elsewhere
from eyas_runtime.train.eagle3.vocab import VocabMap
from eyas_runtime.train.ports import Code, MicroBatch
from eyas_runtime.train.target_head import TargetMatrices

INPUT_IDS: Final = "input_ids"
LOSS_MASK: Final = "loss_mask"
AUX: Final = "hidden_state"
"""The three captured layers, concatenated: the name that SpecForge's loader gives them."""
LAST: Final = "target"
"""The last hidden state after the final norm."""
_NAMES: Final = frozenset({INPUT_IDS, LOSS_MASK, AUX, LAST})
Features = Mapping[str, Tensor]


class DraftTrainer:
    """See `Trainer`. One instance per rank and incarnation."""

    kind = "eagle3"

    def __init__(
        self,
        config: DraftConfig,
        loss: LossConfig,
        optim: OptimConfig,
        parallel: ParallelConfig,
        matrices: TargetMatrices,
        vocab: VocabMap,
        *,
        device: torch.device,
        grid: Grid,
        seed: int,
        packed: bool = False,
        initial: Callable[[str], Tensor] | None = None,
        seed_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        """`grid`: the ranks; one without shard ranks trains the plain module on one rank in float32.

        `packed`: micro-batches lie end to end instead of being padded. `initial` reads an existing draft's tensors by
        name; `seed_step` seeds the generators of a step.
        """
        self._config, self._loss, self._optim, self._parallel = config, loss, optim, parallel
        self._vocab, self._device, self._grid, self._seed = vocab, device, grid, seed
        self._packed, self._initial, self._seed_step = packed, initial, seed_step
        self._embedding = matrices.embedding.to(device)
        self._head = target_head(matrices.output, vocab, dtype=parallel.compute_dtype, device=device, line=grid.tensor)
        self._model: Draft
        self._optimizer: torch.optim.AdamW
        self._counts = torch.zeros(len(COUNTS), loss.steps, dtype=torch.float64)

    def describe(self) -> dict[str, int | float | str | bool]:
        """See `Trainer`."""
        return {name: getattr(self._config, name) for name in self._config.__slots__}

    def initialise(self) -> None:
        """See `Trainer`."""
        draft = self._draft()
        if self._initial is None:
            initialise(draft, self._seed)
        else:
            draft_state.load_weights(draft, self._initial)
        self._adopt(draft)

    def load(self, reader: CheckpointReader) -> None:
        """See `Trainer`."""
        self._adopt(self._draft())
        draft_state.load(self._model, self._optimizer, self._d2t(), reader)

    def _draft(self) -> Draft:
        return Draft(self._config, self._loss, self._embedding, self._vocab, self._grid)

    def _adopt(self, draft: Draft) -> None:
        draft = draft.to(self._device)
        if self._grid.shard is not None:
            draft = parallelize(draft, make_mesh(self._grid.shard, self._device.type), self._parallel)
        self._model = draft
        self._optimizer = make_optimizer(draft, self._optim)
        draft_state.prepare_optimizer(draft, self._optimizer)

    def inspect(self, ref: SampleRef, sample: Features) -> Code:
        """See `Trainer`."""
        width, length = self._config.target_hidden_size, ref.num_tokens
        shapes = {INPUT_IDS: (length,), LOSS_MASK: (length,), AUX: (length, AUX_LAYERS * width), LAST: (length, width)}
        if (
            length < 1
            or set(sample) != _NAMES
            or any(tuple(sample[name].shape) != shape for name, shape in shapes.items())
        ):
            return Code.OTHER_SHAPES
        ids = sample[INPUT_IDS]
        if int(ids.min()) < 0 or int(ids.max()) >= self._config.vocab_size:
            return Code.BAD_TOKENS
        if supervised_count(sample[LOSS_MASK]) != ref.num_supervised:
            return Code.BAD_TOKENS
        finite = all(bool(torch.isfinite(sample[name]).all()) for name in (AUX, LAST))
        return Code.FINE if finite else Code.NOT_FINITE

    def begin(self, step: int, places: int) -> None:
        """See `Trainer`."""
        self._seed_step(step)
        self._optimizer.zero_grad(set_to_none=True)
        self._counts.zero_()

    def accumulate(self, batch: MicroBatch[Features], denominator: float) -> tuple[int, ...]:
        """See `Trainer`."""
        set_last_micro_batch(self._model, batch.last)
        result = self._forward(batch, denominator)
        result.loss.backward()  # type: ignore[no-untyped-call]
        return self._count(batch, result)

    def begin_evaluation(self, places: int) -> None:
        """See `Trainer`."""
        self._counts.zero_()

    def evaluate(self, batch: MicroBatch[Features], denominator: float) -> tuple[int, ...]:
        """See `Trainer`."""
        with torch.no_grad():
            result = self._forward(batch, denominator)
        if batch.last:
            forget_gathered(self._model)
        return self._count(batch, result)

    def _forward(self, batch: MicroBatch[Features], denominator: float) -> Result:
        captured = [None if sample is None else _captured(sample) for sample in batch.samples]
        inputs = normalise(captured, self._config, packed=self._packed, device=self._device)
        result: Result = self._model(inputs, self._head, denominator)
        return result

    def _count(self, batch: MicroBatch[Features], result: Result) -> tuple[int, ...]:
        counts = result.counts.cpu()
        if self._grid.counts:
            self._counts += counts.sum(2)
        bad = ~torch.isfinite(counts).flatten(0, 1).all(0)
        return tuple(
            place for place, wrong in zip(batch.places, bad.tolist(), strict=True) if wrong and place is not None
        )

    def totals(self) -> tuple[float, ...]:
        """See `Trainer`: `COUNTS` x K, flattened."""
        return tuple(self._counts.flatten().tolist())

    def metrics(self, totals: Sequence[float], denominator: float) -> dict[str, float]:
        """`loss`, `ploss_k`, `acc_k`, `acceptance_k` for each k, and `accepted_length`."""
        steps = self._loss.steps
        counts = step_counts([totals[i * steps : (i + 1) * steps] for i in range(len(COUNTS))])
        found = dict(metrics(counts, denominator=denominator, decay=self._loss.decay))
        found["accepted_length"] = found.pop("simulated_accepted_length")
        return {name.replace("acceptance_rate_", "acceptance_"): value for name, value in found.items()}

    def healthy(self) -> bool:
        """See `Trainer`."""
        return draft_state.is_finite(self._model)

    def apply(self, step: int) -> dict[str, float]:
        """See `Trainer`."""
        grid = self._grid
        norm = optimizer_step(
            self._model,
            self._optimizer,
            self._optim,
            step - 1,
            group=grid.world,
            counted=lambda name: not is_told_elsewhere(name, grid.tensor),
        )
        if not torch.isfinite(torch.tensor(norm)):
            raise UserError(
                f"training diverged at step {step}: the gradient's norm is not finite; lower training.learningRate"
            )
        return {"learning_rate": learning_rate(self._optim.schedule, step - 1), "grad_norm": norm}

    def pieces(self) -> Sequence[Piece]:
        """See `Trainer`."""
        rank = 0 if self._grid.world is None else self._grid.world.rank()
        return draft_state.pieces(self._model, self._optimizer, self._d2t(), rank)

    def _d2t(self) -> list[int]:
        return [int(offset) for offset in self._vocab.d2t]


def _captured(sample: Features) -> Captured:
    return Captured(
        input_ids=sample[INPUT_IDS],
        loss_mask=sample[LOSS_MASK],
        aux_hidden_state=sample[AUX],
        hidden_state=sample[LAST],
    )
