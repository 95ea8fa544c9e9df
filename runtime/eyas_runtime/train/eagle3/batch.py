"""The one normaliser: captured samples, online or ingested, become a padded batch here and nowhere else.

For a sample of L tokens the batch holds, at position t: aux(t), token t+1 and the target's last hidden state at
t+1, zeros at t = L-1, and loss_mask(t) unshifted with its last position always 0. So position t uses aux(t) and the
embedding of token t+1 to learn the target's distribution of token t+2. Samples of unequal lengths are padded on the
right, or packed: laid end to end in one row, each with positions of its own. A hole (dead letter, missing place of a
rank's share) has weight 0. Nothing that padding, a hole or a neighbour holds can reach a sample's loss or gradient,
not even a NaN: `plan` gives padding and holes no row, and no sample another's keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from eyas_contract.errors import Corrupt
from eyas_runtime.train.eagle3.config import AUX_LAYERS, DraftConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """One sample as captured, unshifted. A leading dimension of 1 is allowed everywhere."""

    input_ids: Tensor
    """int64 [L]."""
    loss_mask: Tensor
    """0/1 of any dtype [L]."""
    aux_hidden_state: Tensor
    """Float [L, 3A]: the three captured layers, concatenated."""
    hidden_state: Tensor
    """Float [L, A]: the target's last hidden state after its final norm."""


class Batch(NamedTuple):
    """Shifted samples of one micro-batch, all on one device: padded to [B, T], or packed, as a single row [1, T]."""

    input_ids: Tensor
    """int64 [B, T]: token t+1 at position t, 0 at the end and in padding."""
    loss_mask: Tensor
    """bool [B, T]: position t is supervised; false at each sample's last position and in padding."""
    aux: Tensor
    """Float [B, T, 3A]."""
    target: Tensor
    """Float [B, T, A]: last hidden state of position t+1 at position t, zeros at the end and in padding."""
    lengths: tuple[int, ...]
    """True lengths L; a hole's is 1 in a padded batch, 0 in a packed one."""
    starts: tuple[int, ...]
    """Flat position (row * T + column) of each sample's first token."""
    weights: tuple[float, ...]
    """1 for a live sample, 0 for a hole."""

    @property
    def packed(self) -> bool:
        """Whether samples share a row; a single sample is the same either way."""
        return self.input_ids.shape[0] != len(self.lengths)


def normalise(
    samples: Sequence[Captured | None],
    config: DraftConfig,
    *,
    max_length: int | None = None,
    packed: bool = False,
    device: torch.device | str = "cpu",
) -> Batch:
    """Shift, mask, cut to `max_length` and pad (or pack) `samples`; `None` is a hole of weight 0.

    Raises `Corrupt` if a sample's shapes or token ids contradict each other or the draft's shape.
    """
    if not samples:
        raise ValueError("a batch needs at least one place; give None for a hole")
    limit = min(max_length or config.max_position, config.max_position)
    flat = [None if s is None else _cut(s, config, limit) for s in samples]
    lengths = tuple(int(not packed) if s is None else s.input_ids.shape[0] for s in flat)
    a = config.target_hidden_size
    b, t = (1, max(sum(lengths), 1)) if packed else (len(flat), max(lengths))
    starts = tuple(accumulate(lengths[:-1], initial=0)) if packed else tuple(range(0, b * t, t))
    first = next((s for s in flat if s is not None), None)
    aux_dtype = first.aux_hidden_state.dtype if first else torch.float32
    target_dtype = first.hidden_state.dtype if first else torch.float32
    input_ids = torch.zeros(b * t, dtype=torch.int64)
    mask = torch.zeros(b * t, dtype=torch.bool)
    aux = torch.zeros(b * t, AUX_LAYERS * a, dtype=aux_dtype)
    target = torch.zeros(b * t, a, dtype=target_dtype)
    for start, length, sample in zip(starts, lengths, flat, strict=True):
        if sample is None:
            continue
        last = start + length - 1
        input_ids[start:last] = sample.input_ids[1:]
        target[start:last] = sample.hidden_state[1:]
        aux[start : last + 1] = sample.aux_hidden_state
        mask[start:last] = sample.loss_mask[:-1] != 0
    return Batch(
        input_ids=input_ids.view(b, t).to(device),
        loss_mask=mask.view(b, t).to(device),
        aux=aux.view(b, t, -1).to(device),
        target=target.view(b, t, -1).to(device),
        lengths=lengths,
        starts=starts,
        weights=tuple(0.0 if s is None else 1.0 for s in flat),
    )


def supervised_count(loss_mask: Tensor) -> int:
    """Supervised positions of one unshifted mask [L], the last position excluded: the ref's `num_supervised`."""
    return int((loss_mask.reshape(-1)[:-1] != 0).sum())


def _cut(sample: Captured, config: DraftConfig, limit: int) -> Captured:
    ids, mask = sample.input_ids.reshape(-1), sample.loss_mask.reshape(-1)
    aux = sample.aux_hidden_state.reshape(-1, sample.aux_hidden_state.shape[-1])
    last = sample.hidden_state.reshape(-1, sample.hidden_state.shape[-1])
    length, a = ids.shape[0], config.target_hidden_size
    if not length or mask.shape[0] != length:
        raise Corrupt(f"a sample has {length} tokens and a loss mask of {mask.shape[0]}")
    if aux.shape != (length, AUX_LAYERS * a) or last.shape != (length, a):
        raise Corrupt(
            f"a sample of {length} tokens has hidden states {tuple(aux.shape)} and {tuple(last.shape)}; "
            f"the draft's target is {a} wide"
        )
    if int(ids.min()) < 0 or int(ids.max()) >= config.vocab_size:
        raise Corrupt(f"a sample has a token id outside 0..{config.vocab_size - 1}")
    return Captured(
        input_ids=ids[:limit], loss_mask=mask[:limit], aux_hidden_state=aux[:limit], hidden_state=last[:limit]
    )
