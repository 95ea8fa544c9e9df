"""`eyas eval`: a draft, its target and some prompts, and what the draft is worth to them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_runtime.capture.prompts import Prompt, scan
from eyas_runtime.capture.tokenise import fixed_template, load_tokenizer, rendered
from eyas_runtime.evaluate.decoding import (
    Accept,
    Comparison,
    Decoded,
    Round,
    accepted,
    compare,
    decode_alone,
    decode_speculatively,
)
from eyas_runtime.evaluate.drafter import Drafter
from eyas_runtime.evaluate.target import CachedTarget
from eyas_runtime.export.reading import read_exported

CHAIN_DEFAULT: Final = 5
"""Proposals a forward: beyond that even good drafts are seldom right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptResult:
    """One prompt, decoded both ways."""

    where: str
    tokens: int
    rounds: tuple[Round, ...]
    comparison: Comparison
    seconds_alone: float
    seconds_speculative: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the draft is worth. Lengths are in tokens."""

    results: tuple[PromptResult, ...]
    chain: int
    draft_step: int
    weights_sha256: str

    @property
    def identical(self) -> int:
        """Prompts whose text is the target's own, token for token."""
        return self._count("identical")

    @property
    def ties(self) -> int:
        """Prompts that part where the target's own two ways of computing disagree as much."""
        return self._count("tie")

    @property
    def different(self) -> int:
        """Prompts whose text is wrong: an error of the method, never of rounding."""
        return self._count("different")

    @property
    def accepted_length(self) -> float:
        """Tokens gained per forward of the target: 1 means that the draft helped nothing."""
        rounds = self._rounds()
        return sum(1 + turn.accepted for turn in rounds) / len(rounds) if rounds else 0.0

    @property
    def acceptance(self) -> tuple[float, ...]:
        """For proposal 1, 2, ...: how often it was kept, of the rounds that kept all before it and proposed it."""
        rates = []
        for place in range(self.chain):
            reached = [turn for turn in self._rounds() if turn.proposed > place and turn.accepted >= place]
            kept = sum(turn.accepted > place for turn in reached)
            rates.append(kept / len(reached) if reached else 0.0)
        return tuple(rates)

    def to_json(self) -> dict[str, Any]:
        """Everything that counts, for machines."""
        return {
            "prompts": len(self.results),
            "identical": self.identical,
            "ties": self.ties,
            "different": self.different,
            "identicalText": self.identical == len(self.results),
            "acceptedLength": self.accepted_length,
            "acceptancePerPosition": list(self.acceptance),
            "chain": self.chain,
            "tokens": sum(result.tokens for result in self.results),
            "targetForwards": len(self._rounds()),
            "secondsAlone": sum(result.seconds_alone for result in self.results),
            "secondsSpeculative": sum(result.seconds_speculative for result in self.results),
            "draftStep": self.draft_step,
            "weightsSha256": self.weights_sha256,
            "parted": [
                {
                    "where": result.where, "verdict": result.comparison.verdict,
                    "position": result.comparison.position, "margin": result.comparison.margin,
                    "rounding": result.comparison.rounding,
                }
                for result in self.results
                if result.comparison.verdict != "identical"
            ],
        }  # fmt: skip

    def _count(self, verdict: str) -> int:
        return sum(result.comparison.verdict == verdict for result in self.results)

    def _rounds(self) -> list[Round]:
        return [turn for result in self.results for turn in result.rounds]


def evaluate(
    draft: Path,
    target: TargetConfig,
    prompts: Path,
    *,
    limit: int,
    tokens: int,
    chain: int = CHAIN_DEFAULT,
    device: torch.device | str = "cpu",
    accept: Accept = accepted,
    progress: Callable[[PromptResult], None] = lambda result: None,
) -> Report:
    """Decode up to `limit` prompts both ways, `tokens` new tokens each. Raises `UserError`."""
    if limit < 1 or tokens < 2 or chain < 1:
        raise UserError("give at least 1 prompt, 2 tokens and 1 proposal")
    exported = read_exported(draft)
    model = CachedTarget(target, device=device)
    drafter = Drafter(exported, model.embedding, dtype=model.dtype, device=device)
    results = []
    for where, ids in islice(prompt_ids(prompts, target), limit):
        results.append(_one(where, ids, model, drafter, tokens=tokens, chain=chain, accept=accept))
        progress(results[-1])
    return Report(
        results=tuple(results),
        chain=chain,
        draft_step=int(exported.facts.get("step", 0)),
        weights_sha256=str(exported.facts.get("weights_sha256", "")),
    )


def _one(
    where: str,
    ids: Sequence[int],
    model: CachedTarget,
    drafter: Drafter,
    *,
    tokens: int,
    chain: int,
    accept: Accept,
) -> PromptResult:
    began = time.monotonic()
    alone = decode_alone(model, ids, tokens=tokens)
    between = time.monotonic()
    text: Decoded = decode_speculatively(model, drafter, ids, tokens=tokens, chain=chain, accept=accept)
    ended = time.monotonic()
    return PromptResult(
        where=where,
        tokens=len(text.tokens),
        rounds=text.rounds,
        comparison=compare(model, ids, alone, text.tokens),
        seconds_alone=between - began,
        seconds_speculative=ended - between,
    )


def prompt_ids(path: Path, target: TargetConfig) -> Iterator[tuple[str, list[int]]]:
    """(where, token ids) of each prompt, opened for the assistant's answer; answers that it holds are left out."""
    tokenizer = load_tokenizer(target)
    template = fixed_template(getattr(tokenizer, "chat_template", None))
    for located in scan((str(path),)):
        if located.prompt.text is not None:
            ids = list(tokenizer(located.prompt.text, add_special_tokens=True)["input_ids"])
        else:
            messages = _question(located.prompt)
            if not messages:
                continue
            text = rendered(tokenizer, template, messages, located.where, opened=True)
            ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        if ids:
            yield located.where, ids


def _question(prompt: Prompt) -> list[dict[str, str]]:
    """The turns up to the last one that is not the assistant's."""
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    return messages
