"""Step time of the product against the plain arm, interleaved in one run on the same inputs.

Both arms run forward, backward, clipping and AdamW on the same draft.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eyas_runtime.train.eagle3.batch import normalise
from eyas_runtime.train.eagle3.bench_inputs import make_sample, make_setting, make_step, median_seconds
from eyas_runtime.train.eagle3.config import DraftConfig, LossConfig
from eyas_runtime.train.eagle3.plain import plain_loss

SMOLLM2_135M = DraftConfig(
    hidden_size=576,
    intermediate_size=1536,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    target_hidden_size=576,
    vocab_size=49152,
    draft_vocab_size=8192,
    max_position=2048,
    rope_theta=100000.0,
)
"""A draft for a 135 M parameter target: what a laptop trains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Medians over interleaved repetitions."""

    plain_seconds: float
    eyas_seconds: float
    in_vocab_share: float
    """Teacher tokens inside the draft's vocabulary, of the supervised ones."""
    loss_difference: float
    """|loss - plain loss| / plain loss: both arms computed the same thing."""

    @property
    def ratio(self) -> float:
        """Eyas' time over the plain arm's."""
        return self.eyas_seconds / self.plain_seconds


def bench_step(
    config: DraftConfig = SMOLLM2_135M,
    loss: LossConfig | None = None,
    *,
    length: int = 256,
    batch_size: int = 1,
    supervised_share: float = 0.6,
    repeats: int = 7,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> StepTimes:
    """Time one optimizer step of both arms on `batch_size` samples of `length` tokens.

    The first (1 - supervised_share) of each sample is prompt. Uses the threads that torch is set to.
    """
    draft, split, whole = make_setting(config, loss or LossConfig(), device=device, dtype=dtype, seed=seed)
    samples = [make_sample(config, length, supervised_share) for _ in range(batch_size)]
    batch = normalise(samples, config, device=device)
    denominator = float(length * batch_size)

    with torch.no_grad():
        ours = draft(batch, split, denominator)
        theirs = float(plain_loss(draft, batch, whole, denominator))
    counts_now = ours.counts[:, 0].sum(dim=1)
    eyas = make_step(draft, _backward(lambda: draft(batch, split, denominator).loss))
    plain = make_step(draft, _backward(lambda: plain_loss(draft, batch, whole, denominator)))
    plain_seconds, eyas_seconds = median_seconds((plain, eyas), repeats=repeats, device=device)
    return StepTimes(
        plain_seconds=plain_seconds,
        eyas_seconds=eyas_seconds,
        in_vocab_share=float(counts_now[4] / counts_now[2].clamp_min(1)),
        loss_difference=abs(float(ours.loss) - theirs) / max(abs(theirs), 1e-30),
    )


def _backward(loss: Callable[[], Tensor]) -> Callable[[], None]:
    def backward() -> None:
        loss().backward()  # type: ignore[no-untyped-call]

    return backward
