"""The frozen output matrix of the target, and what of its logits the draft learns from.

The matrix is stored as two blocks, the rows of the draft's vocabulary first and the rest after them, both in
ascending token order. So the draft-limited logits are one product, and the full vocabulary's logsumexp and argmax
fold in the rest block by block: no [positions, V] tensor ever exists. Ties of the argmax go to the lowest token id.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor

from eyas_runtime.train.eagle3.columns import best_of
from eyas_runtime.train.eagle3.exchange import gathered
from eyas_runtime.train.eagle3.grid import ALONE, Line
from eyas_runtime.train.eagle3.products import nt_float
from eyas_runtime.train.eagle3.vocab import VocabMap

BLOCK_BYTES: Final = 32 << 20
"""Logits of the rest of the vocabulary held at once: small enough for a cache or a corner of a GPU."""


class TargetHead(NamedTuple):
    """Frozen rows of the target's output matrix, by what the draft can say; of T tensor ranks, this one's rows."""

    draft: Tensor
    """Float [D / T, A], ascending token ids."""
    rest: Tensor
    """Float [(V - D) / T, A], ascending token ids."""
    draft_ids: Tensor
    """int64 [D], of all ranks."""
    rest_ids: Tensor
    """int64 [(V - D) / T]."""
    line: Line = ALONE
    """The tensor ranks."""


class Teacher(NamedTuple):
    """The target's view of n positions."""

    logits: Tensor
    """Float32 or float64 [n, D / T], limited to the draft's vocabulary."""
    full_lse: Tensor
    """[n]: logsumexp over the full vocabulary."""
    best: Tensor
    """int64 [n]: draft id of the best token of the draft's vocabulary."""
    in_vocab: Tensor
    """bool [n]: the argmax over the full vocabulary is that token."""


def target_head(
    weight: Tensor,
    vocab: VocabMap,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    line: Line = ALONE,
) -> TargetHead:
    """Split the target's output matrix `weight` [V, A] (any float dtype) and put it on `device` as `dtype`.

    Of several tensor ranks in `line`, each keeps equal runs of either part.

    Raises `ValueError` if the vocabulary map is of another size.
    """
    if weight.shape[0] != vocab.t2d.size:
        raise ValueError(f"the target's output matrix has {weight.shape[0]} rows, the map {vocab.t2d.size}")
    inside = torch.from_numpy(vocab.t2d.copy())
    draft_ids, rest_ids = inside.nonzero().squeeze(1), (~inside).nonzero().squeeze(1)
    weight = weight.detach()
    mine, rest = (ids.tensor_split(line.size)[line.rank] for ids in (draft_ids, rest_ids))
    return TargetHead(
        draft=weight[mine.to(weight.device)].to(device, dtype),
        rest=weight[rest.to(weight.device)].to(device, dtype),
        draft_ids=draft_ids.to(device),
        rest_ids=rest.to(device),
        line=line,
    )


def teach(hidden: Tensor, head: TargetHead) -> Teacher:
    """Teacher of `hidden` [n, A], the target's last hidden states; no gradient."""
    with torch.no_grad():
        hidden = hidden.to(head.draft.dtype)
        logits = nt_float(hidden, head.draft)
        top, best = logits.max(dim=1)
        lse = _lse(logits, top)
        rest_top = torch.full_like(top, -torch.inf)
        rest_id = torch.full_like(best, torch.iinfo(torch.int64).max)
        step = max(1, BLOCK_BYTES // max(1, hidden.shape[0] * logits.element_size()))
        for start in range(0, head.rest.shape[0], step):
            block = nt_float(hidden, head.rest[start : start + step])
            block_top, column = block.max(dim=1)
            # Blocks ascend in token id, so only a strictly larger value replaces an earlier one.
            better = block_top > rest_top
            rest_id = torch.where(better, head.rest_ids[start + column], rest_id)
            rest_top = torch.where(better, block_top, rest_top)
            lse = torch.logaddexp(lse, block_top + block.sub_(block_top[:, None]).exp_().sum(1).log())
        if head.line.size > 1:
            lse = torch.logsumexp(gathered(lse, head.line), dim=0)
            top, best = best_of(top, best + head.line.rank * logits.shape[1], head.line)
            rest_top, rest_id = best_of(rest_top, rest_id, head.line)
        in_vocab = (top > rest_top) | ((top == rest_top) & (head.draft_ids[best] < rest_id))
        # A teacher that is not finite must show in its sample's loss, not vanish from it.
        in_vocab |= ~lse.isfinite()
        return Teacher(logits, lse, best, in_vocab)


def _lse(logits: Tensor, top: Tensor) -> Tensor:
    return top + (logits - top[:, None]).exp_().sum(1).log()
