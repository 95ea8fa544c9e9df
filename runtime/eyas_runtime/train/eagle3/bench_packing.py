"""Packed micro-batches against padded ones, on windows of unequal lengths, interleaved in one run.

An arm is one optimizer step over the same window. `padded` takes as many samples a micro-batch as the budget of the
packs holds at the longest length, which is what bounds its memory equally; `single` takes one, the default of a job.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from eyas_runtime.core.packing import packs
from eyas_runtime.core.windows import MicroBatch, share
from eyas_runtime.train.eagle3.batch import Batch, Captured, normalise
from eyas_runtime.train.eagle3.bench_inputs import Setting, make_sample, make_setting, make_step, median_seconds
from eyas_runtime.train.eagle3.config import DraftConfig, LossConfig

REDUCED = DraftConfig(
    hidden_size=288,
    intermediate_size=768,
    num_heads=9,
    num_kv_heads=3,
    head_dim=32,
    target_hidden_size=288,
    vocab_size=16384,
    draft_vocab_size=4096,
    max_position=2048,
)
"""SmolLM2-135M's shape at half its width and a third of its vocabulary, so that a window takes seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingTimes:
    """Medians over interleaved repetitions of one window."""

    tokens: int
    """Of the window; what each arm's time is divided into."""
    turns: tuple[int, int, int]
    """Micro-batches of the single, the padded and the packed arm."""
    slots: tuple[int, int, int]
    """Positions that each arm's batches hold, padding included."""
    single_seconds: float
    padded_seconds: float
    packed_seconds: float
    loss_difference: float
    """|packed - padded| / padded, of the whole window's loss."""

    @property
    def ratio(self) -> float:
        """The packed arm's time over the padded one's."""
        return self.packed_seconds / self.padded_seconds


def bench_packing(
    config: DraftConfig = REDUCED,
    loss: LossConfig | None = None,
    *,
    samples: int = 16,
    lengths: tuple[int, int] = (32, 256),
    max_tokens: int = 1024,
    supervised_share: float = 0.6,
    repeats: int = 5,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> PackingTimes:
    """Time one optimizer step over `samples` samples of lengths drawn evenly from `lengths`, both ends included.

    Raises `ValueError` if `max_tokens` does not hold the longest sample.
    """
    if max_tokens < lengths[1]:
        raise ValueError(f"a budget of {max_tokens} tokens does not hold a sample of {lengths[1]}")
    setting = make_setting(config, loss or LossConfig(), device=device, dtype=dtype, seed=seed)
    tokens = torch.randint(lengths[0], lengths[1] + 1, (samples,)).tolist()
    captured = [make_sample(config, length, supervised_share) for length in tokens]

    def window(turns: Sequence[MicroBatch], *, packed: bool) -> list[Batch]:
        chosen = [[None if place is None else captured[place] for place in turn] for turn in turns]
        return [_batch(turn, config, packed, device) for turn in chosen]

    def padded(size: int) -> list[Batch]:
        return window(share(rank=0, world=1, places=samples, micro_batch_size=size), packed=False)

    arms = (
        padded(1),
        padded(max_tokens // max(tokens)),
        window(packs(tokens, world=1, max_tokens=max_tokens)[0], packed=True),
    )
    denominator = float(sum(tokens))
    losses = [_loss(setting, batches, denominator) for batches in arms]
    steps = [make_step(setting.draft, _backward(setting, batches, denominator)) for batches in arms]
    single, even, full = median_seconds(steps, repeats=repeats, device=device)
    return PackingTimes(
        tokens=sum(tokens),
        turns=(len(arms[0]), len(arms[1]), len(arms[2])),
        slots=(_slots(arms[0]), _slots(arms[1]), _slots(arms[2])),
        single_seconds=single,
        padded_seconds=even,
        packed_seconds=full,
        loss_difference=abs(losses[2] - losses[1]) / max(abs(losses[1]), 1e-30),
    )


def _batch(samples: Sequence[Captured | None], config: DraftConfig, packed: bool, device: str) -> Batch:
    return normalise(samples, config, packed=packed, device=device)


def _slots(batches: Sequence[Batch]) -> int:
    return sum(batch.input_ids.numel() for batch in batches)


def _loss(setting: Setting, batches: Sequence[Batch], denominator: float) -> float:
    with torch.no_grad():
        return sum(float(setting.draft(batch, setting.head, denominator).loss) for batch in batches)


def _backward(setting: Setting, batches: Sequence[Batch], denominator: float) -> Callable[[], None]:
    def backward() -> None:
        for batch in batches:
            setting.draft(batch, setting.head, denominator).loss.backward()

    return backward
