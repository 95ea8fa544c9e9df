"""What the step benchmarks are made of: a draft, its frozen head, samples, one optimizer step, and the clock.

Synthetic: the arithmetic does not depend on values, but for the share of teacher tokens in the draft's vocabulary.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eyas_runtime.train.eagle3.batch import Captured
from eyas_runtime.train.eagle3.config import AUX_LAYERS, DraftConfig, LossConfig
from eyas_runtime.train.eagle3.model import Draft
from eyas_runtime.train.eagle3.optim import OptimConfig, make_optimizer, optimizer_step
from eyas_runtime.train.eagle3.parameters import initialise
from eyas_runtime.train.eagle3.schedule import ScheduleConfig
from eyas_runtime.train.eagle3.teacher import TargetHead, target_head
from eyas_runtime.train.eagle3.vocab import VocabMap, build_vocab_map


class Setting(NamedTuple):
    """A draft and its target's output matrix, split as the product holds it and whole."""

    draft: Draft
    head: TargetHead
    whole: Tensor


def make_setting(config: DraftConfig, loss: LossConfig, *, device: str, dtype: torch.dtype, seed: int) -> Setting:
    """Weights as at a job's start; a target whose head favours the draft's vocabulary, as a real map does."""
    torch.manual_seed(seed)
    counts = np.random.default_rng(seed).integers(0, 1000, config.vocab_size)
    vocab = build_vocab_map(counts, config.draft_vocab_size)
    embedding = torch.randn(config.vocab_size, config.hidden_size) * 0.1
    head = _head(config, vocab)
    draft = Draft(config, loss, embedding, vocab)
    initialise(draft, seed)
    split = target_head(head, vocab, dtype=dtype, device=device)
    return Setting(draft.to(device, dtype), split, head.to(device, dtype))


def _head(config: DraftConfig, vocab: VocabMap) -> Tensor:
    head = torch.randn(config.vocab_size, config.target_hidden_size) * 0.05
    head[~torch.from_numpy(vocab.t2d)] *= 0.8
    return head


def make_sample(config: DraftConfig, length: int, supervised_share: float) -> Captured:
    """A sample of `length` tokens, the first (1 - supervised_share) of which are prompt."""
    mask = torch.zeros(length, dtype=torch.int64)
    mask[int(length * (1 - supervised_share)) :] = 1
    return Captured(
        input_ids=torch.randint(0, config.vocab_size, (length,)),
        loss_mask=mask,
        aux_hidden_state=torch.randn(length, AUX_LAYERS * config.target_hidden_size),
        hidden_state=torch.randn(length, config.target_hidden_size),
    )


def make_step(draft: Draft, backward: Callable[[], None]) -> Callable[[], None]:
    """`backward`, then clipping and AdamW at a learning rate of 0, so that every repetition does the same."""
    optim = OptimConfig(schedule=ScheduleConfig(learning_rate=0.0, total_steps=1000, kind="constant"))
    optimizer = make_optimizer(draft, optim)

    def step() -> None:
        backward()
        optimizer_step(draft, optimizer, optim, 0)

    return step


def median_seconds(arms: Sequence[Callable[[], None]], *, repeats: int, device: str) -> list[float]:
    """Median time of each arm over `repeats` interleaved turns, after one that is not counted. Reads the clock."""
    times: list[list[float]] = [[] for _ in arms]
    for turn in range(repeats + 1):
        for arm, bucket in zip(arms, times, strict=True):
            start = time.perf_counter()
            arm()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn:
                bucket.append(time.perf_counter() - start)
    return [statistics.median(bucket) for bucket in times]
