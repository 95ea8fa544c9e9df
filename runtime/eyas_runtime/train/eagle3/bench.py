"""Step time of the product against the plain arm, interleaved in one run on the same inputs. Reads the clock.

Both arms run forward, backward, clipping and AdamW on the same draft. Synthetic inputs: the arithmetic does not
depend on their values, but for the share of teacher tokens in the draft's vocabulary, which is reported.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eyas_runtime.train.eagle3.batch import Batch, Captured, normalise
from eyas_runtime.train.eagle3.config import AUX_LAYERS, DraftConfig, LossConfig
from eyas_runtime.train.eagle3.model import Draft, initialise
from eyas_runtime.train.eagle3.optim import OptimConfig, make_optimizer, optimizer_step
from eyas_runtime.train.eagle3.plain import plain_loss
from eyas_runtime.train.eagle3.schedule import ScheduleConfig
from eyas_runtime.train.eagle3.teacher import target_head
from eyas_runtime.train.eagle3.vocab import VocabMap, build_vocab_map

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
    torch.manual_seed(seed)
    counts = np.random.default_rng(seed).integers(0, 1000, config.vocab_size)
    vocab = build_vocab_map(counts, config.draft_vocab_size)
    embedding = torch.randn(config.vocab_size, config.hidden_size) * 0.1
    head = _head(config, vocab)
    draft = Draft(config, loss or LossConfig(), embedding, vocab)
    initialise(draft, seed)
    draft = draft.to(device, dtype)
    batch = _batch(config, length, batch_size, supervised_share, device)
    denominator = float(length * batch_size)
    split, whole = target_head(head, vocab, dtype=dtype, device=device), head.to(device, dtype)

    with torch.no_grad():
        ours = draft(batch, split, denominator)
        theirs = float(plain_loss(draft, batch, whole, denominator))
    counts_now = ours.counts[:, 0].sum(dim=1)
    eyas = _step(draft, lambda: draft(batch, split, denominator).loss)
    plain = _step(draft, lambda: plain_loss(draft, batch, whole, denominator))
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for arm, bucket in zip((plain, eyas), times, strict=True):
            start = time.perf_counter()
            arm()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn:
                bucket.append(time.perf_counter() - start)
    return StepTimes(
        plain_seconds=statistics.median(times[0]),
        eyas_seconds=statistics.median(times[1]),
        in_vocab_share=float(counts_now[4] / counts_now[2].clamp_min(1)),
        loss_difference=abs(float(ours.loss) - theirs) / max(abs(theirs), 1e-30),
    )


def _head(config: DraftConfig, vocab: VocabMap) -> Tensor:
    """A random output matrix that favours the draft's vocabulary, as a real map does."""
    head = torch.randn(config.vocab_size, config.target_hidden_size) * 0.05
    head[~torch.from_numpy(vocab.t2d)] *= 0.8
    return head


def _batch(config: DraftConfig, length: int, size: int, share: float, device: str) -> Batch:
    mask = torch.zeros(length, dtype=torch.int64)
    mask[int(length * (1 - share)) :] = 1
    samples = [
        Captured(
            input_ids=torch.randint(0, config.vocab_size, (length,)),
            loss_mask=mask,
            aux_hidden_state=torch.randn(length, AUX_LAYERS * config.target_hidden_size),
            hidden_state=torch.randn(length, config.target_hidden_size),
        )
        for _ in range(size)
    ]
    return normalise(samples, config, device=device)


def _step(draft: Draft, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optim = OptimConfig(schedule=ScheduleConfig(learning_rate=0.0, total_steps=1000, kind="constant"))
    optimizer = make_optimizer(draft, optim)

    def step() -> None:
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer_step(draft, optimizer, optim, 0)

    return step
