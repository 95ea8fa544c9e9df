"""Greedy decoding, alone and speculative, and the comparison of the two.

Speculative decoding changes how a text is computed, never the text: a proposal is kept only where the target itself
would have written it. In exact arithmetic the two texts are equal. In floating point a forward of several tokens and
one of a single token round differently, so where the target's two best tokens are closer than that rounding, either is
"its own". Such a place is not assumed but shown: the target is run over the same prefix in both ways, and its own two
answers must differ by as much as the margin. Anything else is a difference, and an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from eyas_runtime.evaluate.drafter import Drafter
from eyas_runtime.evaluate.target import CachedTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One forward of the target."""

    proposed: int
    accepted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A text and how it came about."""

    tokens: tuple[int, ...]
    rounds: tuple[Round, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Whether two texts of the target are one."""

    verdict: Literal["identical", "tie", "different"]
    position: int = -1
    """First token that differs; -1 when none does."""
    margin: float = 0.0
    """Distance of the two tokens' logits there."""
    rounding: float = 0.0
    """How far the target's own logits of that prefix lie apart when computed in two ways."""


class Accept(Protocol):
    """How many proposals are kept."""

    def __call__(self, proposed: Sequence[int], own: Sequence[int]) -> int:
        """`own` [len(proposed) + 1]: what the target writes at each place, given all proposals before it."""
        ...


def accepted(proposed: Sequence[int], own: Sequence[int]) -> int:
    """Length of the longest prefix of `proposed` that the target itself would have written."""
    for count, (token, wanted) in enumerate(zip(proposed, own, strict=False)):
        if token != wanted:
            return count
    return len(proposed)


def decode_alone(target: CachedTarget, prompt: Sequence[int], *, tokens: int) -> tuple[int, ...]:
    """The target's own greedy text: one token a forward, up to `tokens` or its end."""
    target.reset()
    logits, _ = target.forward(list(prompt))
    text: list[int] = []
    while True:
        text.append(int(logits[-1].argmax()))
        if len(text) == tokens or text[-1] in target.end_ids:
            return tuple(text)
        logits, _ = target.forward(text[-1:])


def decode_speculatively(
    target: CachedTarget,
    drafter: Drafter,
    prompt: Sequence[int],
    *,
    tokens: int,
    chain: int,
    accept: Accept = accepted,
) -> Decoded:
    """The same text with proposals of up to `chain` tokens a forward."""
    target.reset()
    drafter.reset()
    logits, aux = target.forward(list(prompt))
    text = [int(logits[-1].argmax())]
    after = [*prompt[1:], text[0]]
    rounds: list[Round] = []
    while len(text) < tokens and text[-1] not in target.end_ids:
        hidden = drafter.extend(aux, torch.tensor(after, device=aux.device))
        # The last token of a round is always the target's own: more proposals than tokens that are left are wasted.
        count = min(chain, tokens - len(text) - 1)
        proposed = drafter.propose(hidden, count) if count else []
        logits, aux = target.forward([text[-1], *proposed])
        own = logits.argmax(dim=-1).tolist()
        kept = accept(proposed, own)
        written = _until_end([*proposed[:kept], own[kept]], target.end_ids)
        rounds.append(Round(proposed=len(proposed), accepted=min(kept, len(written))))
        text += written
        target.crop(len(prompt) + len(text) - 1)
        aux, after = aux[: len(written)], written
    return Decoded(tokens=tuple(text), rounds=tuple(rounds))


def compare(target: CachedTarget, prompt: Sequence[int], alone: Sequence[int], other: Sequence[int]) -> Comparison:
    """Compare the target's own text with `other`; see the module for what a tie is."""
    pairs = zip(alone, other, strict=False)
    position = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(alone), len(other)))
    if position == len(alone) == len(other):
        return Comparison(verdict="identical")
    if position in (len(alone), len(other)):
        return Comparison(verdict="different", position=position)
    stepped, whole = _two_ways(target, prompt, alone[:position])
    first, second = alone[position], other[position]
    margin = abs(float(stepped[first] - stepped[second]))
    rounding = float((stepped - whole).abs().max())
    # The two logits may move towards each other, so twice the rounding is what can turn their order.
    is_tie = margin <= 2 * rounding
    return Comparison(verdict="tie" if is_tie else "different", position=position, margin=margin, rounding=rounding)


def _two_ways(target: CachedTarget, prompt: Sequence[int], prefix: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The target's logits after prompt and prefix: token by token, and all at once."""
    target.reset()
    logits, _ = target.forward(list(prompt))
    for token in prefix:
        logits, _ = target.forward([token])
    stepped = logits[-1]
    target.reset()
    logits, _ = target.forward([*prompt, *prefix])
    return stepped, logits[-1]


def _until_end(tokens: list[int], end_ids: frozenset[int]) -> list[int]:
    end = next((index for index, token in enumerate(tokens) if token in end_ids), None)
    return tokens if end is None else tokens[: end + 1]
