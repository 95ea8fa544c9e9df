"""Speculative decoding writes the target's own text, whatever the draft says; and counts what it gained honestly."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_runtime.capture.tokenise import load_tokenizer
from eyas_runtime.evaluate.decoding import (
    Accept,
    Comparison,
    Round,
    accepted,
    compare,
    decode_alone,
    decode_speculatively,
)
from eyas_runtime.evaluate.drafter import Drafter
from eyas_runtime.evaluate.run import PromptResult, Report, evaluate, prompt_ids
from eyas_runtime.evaluate.target import CachedTarget
from eyas_runtime.export.reading import read_exported
from eyas_runtime.train.eagle3.batch import Captured, normalise
from eyas_runtime.train.eagle3.model import Draft
from eyas_runtime.train.eagle3.plan import make_plan
from eyas_runtime.train.eagle3.unroll import unroll
from eyas_runtime.train.eagle3.vocab import VocabMap, build_vocab_map
from support.checkpoints import make_root
from support.drafts import exported, tiny_draft
from support.tiny_target import VOCAB_SIZE, make_tiny_target, write_tiny_prompts

FAVOURITE = 100
"""The one token that the constant target ever writes."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cached(target: Path) -> CachedTarget:
    return CachedTarget(TargetConfig(model=str(target)))


def drafter_of(tmp_path: Path, draft: Draft, target: Path) -> Drafter:
    folder = exported(make_root(tmp_path), draft, tmp_path / "draft", target)
    return Drafter(read_exported(folder), torch.empty(0), dtype=torch.float32)


def constant_target(folder: Path) -> Path:
    """A target that writes FAVOURITE for ever: every layer passes its input on, and one direction decides."""
    from safetensors.torch import load_file, save_file

    make_tiny_target(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
            tensor.zero_()
    tensors["model.embed_tokens.weight"][:, 0] = 3.0
    tensors["lm_head.weight"][FAVOURITE, 0] = 1.0
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def perfect_draft(target: Path) -> Draft:
    """For the constant target: the deciding direction goes straight through to the output."""
    draft = tiny_draft(target, vocab=build_vocab_map(np.eye(VOCAB_SIZE, dtype=np.int64)[FAVOURITE], 120))
    kept = (draft.d2t + torch.arange(len(draft.d2t))).tolist()
    with torch.no_grad():
        for name, parameter in draft.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "fc.weight", "lm_head.weight")):
                parameter.zero_()
        draft.fc.weight[0, 0] = 1.0
        draft.lm_head.weight[kept.index(FAVOURITE), 0] = 1.0
    return draft


PROMPT = [1, 3, 264, 227, 75, 82, 6, 4]


@pytest.mark.parametrize("chain", [1, 3, 6])
def test_text_is_the_targets_own_with_an_untrained_draft(
    tmp_path: Path, target: Path, cached: CachedTarget, chain: int
) -> None:
    drafter = drafter_of(tmp_path, tiny_draft(target), target)
    for start in range(4):
        prompt = [*PROMPT, 200 + start]
        alone = decode_alone(cached, prompt, tokens=30)
        text = decode_speculatively(cached, drafter, prompt, tokens=30, chain=chain)
        assert text.tokens == alone
        assert sum(1 + turn.accepted for turn in text.rounds) == len(alone) - 1


def test_perfect_draft_gains_the_whole_chain(tmp_path: Path) -> None:
    folder = constant_target(tmp_path / "target")
    cached = CachedTarget(TargetConfig(model=str(folder)))
    drafter = drafter_of(tmp_path, perfect_draft(folder), folder)
    text = decode_speculatively(cached, drafter, PROMPT, tokens=25, chain=5)
    assert text.tokens == (FAVOURITE,) * 25 == decode_alone(cached, PROMPT, tokens=25)
    assert [turn.accepted for turn in text.rounds] == [5, 5, 5, 5]


@pytest.mark.parametrize("newer", [False, True], ids=["eagle3", "eagle3.1"])
def test_recurrence_equals_the_trainers_unrolled_form(tmp_path: Path, target: Path, newer: bool) -> None:
    """The trainer's step k at position t is the draft's k-th guess after t captures, when the guesses are forced."""
    draft = tiny_draft(target, newer=newer, seed=5)
    drafter = drafter_of(tmp_path, draft, target)
    length, steps = 12, 4
    source = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCAB_SIZE, (length,), generator=source)
    aux = torch.randn(length, 96, generator=source)
    sample = Captured(
        input_ids=ids, loss_mask=torch.ones(length), aux_hidden_state=aux, hidden_state=torch.randn(length, 32)
    )
    batch = normalise([sample], draft.config)
    plan = make_plan(batch, steps)
    with torch.inference_mode():
        unrolled = unroll(draft, batch, plan, steps)
    rows = {int(position): row for row, position in enumerate(plan.positions[plan.query_rows].tolist())}
    for position in range(length - steps - 1):
        drafter.reset()
        hidden = drafter.extend(aux[: position + 1], ids[1 : position + 2])
        for step in range(steps):
            normed = drafter._norm(hidden, "norm.weight")
            assert torch.allclose(normed[0], unrolled[step][rows[position]], rtol=1e-4, atol=1e-5), (position, step)
            carried = normed if newer else hidden
            hidden = drafter._layer(carried, ids[position + 2 + step][None], drafter._keys.shape[1])


def test_guesses_leave_the_cache_when_the_target_has_spoken(tmp_path: Path, target: Path) -> None:
    drafter = drafter_of(tmp_path, tiny_draft(target), target)
    source = torch.Generator().manual_seed(2)
    aux, after = torch.randn(9, 96, generator=source), torch.randint(0, VOCAB_SIZE, (9,), generator=source)
    whole = drafter.extend(aux, after)
    drafter.reset()
    drafter.propose(drafter.extend(aux[:5], after[:5]), 4)
    drafter.propose(drafter.extend(aux[5:7], after[5:7]), 2)
    assert torch.allclose(drafter.extend(aux[7:], after[7:]), whole, rtol=1e-4, atol=1e-5)
    assert drafter.length == 9


def test_cache_of_the_target_forgets_refused_proposals(cached: CachedTarget) -> None:
    cached.reset()
    clean, _ = cached.forward([*PROMPT, 70])
    cached.reset()
    cached.forward(PROMPT)
    cached.forward([9, 8, 7])
    cached.crop(len(PROMPT))
    again, aux = cached.forward([70])
    assert torch.allclose(again[-1], clean[-1], rtol=1e-4, atol=1e-4)
    assert aux.shape == (1, 96)


@pytest.mark.parametrize(
    ("proposed", "own", "kept"),
    [([], [5], 0), ([1, 2], [1, 2, 3], 2), ([1, 2], [1, 9, 3], 1), ([1, 2], [9, 2, 3], 0), ([7, 1], [9, 1, 3], 0)],
    ids=["nothing", "all", "first", "none", "a match behind a miss counts nothing"],
)
def test_only_what_the_target_would_have_written_is_kept(proposed: list[int], own: list[int], kept: int) -> None:
    assert accepted(proposed, own) == kept


def test_text_stops_at_its_end_within_a_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = constant_target(tmp_path / "target")
    settings = folder / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token_id": [2, FAVOURITE]}))
    cached = CachedTarget(TargetConfig(model=str(folder)))
    drafter = drafter_of(tmp_path, perfect_draft(folder), folder)
    assert decode_alone(cached, PROMPT, tokens=9) == (FAVOURITE,)
    assert decode_speculatively(cached, drafter, PROMPT, tokens=9, chain=4).tokens == (FAVOURITE,)
    monkeypatch.setattr(CachedTarget, "end_ids", frozenset())
    first = decode_speculatively(cached, drafter, PROMPT, tokens=9, chain=4)
    assert len(first.tokens) == 9


def keep_everything(proposed: Sequence[int], own: Sequence[int]) -> int:
    return len(proposed)


def keep_one_too_many(proposed: Sequence[int], own: Sequence[int]) -> int:
    return min(len(proposed), accepted(proposed, own) + 1)


@pytest.mark.parametrize("mutant", [keep_everything, keep_one_too_many])
def test_acceptance_without_verification_is_caught(
    tmp_path: Path,
    target: Path,
    mutant: Accept,
) -> None:
    folder = exported(make_root(tmp_path), tiny_draft(target), tmp_path / "draft", target)
    prompts = write_tiny_prompts(tmp_path / "p.jsonl", 4)
    settings = TargetConfig(model=str(target))
    honest = evaluate(folder, settings, prompts, limit=4, tokens=16)
    cheating = evaluate(folder, settings, prompts, limit=4, tokens=16, accept=mutant)
    assert (honest.identical, honest.different) == (4, 0)
    assert cheating.different >= 3
    assert all(result.comparison.margin > 2 * result.comparison.rounding for result in cheating.results[:1])


def test_text_that_ends_early_is_different_not_a_tie(cached: CachedTarget) -> None:
    alone = decode_alone(cached, PROMPT, tokens=8)
    assert compare(cached, PROMPT, alone, alone).verdict == "identical"
    assert compare(cached, PROMPT, alone, alone[:5]) == Comparison(verdict="different", position=5)


def test_tie_needs_a_margin_within_the_targets_own_rounding(cached: CachedTarget) -> None:
    alone = decode_alone(cached, PROMPT, tokens=8)
    other = (*alone[:4], (alone[4] + 1) % VOCAB_SIZE, *alone[5:])
    found = compare(cached, PROMPT, alone, other)
    assert (found.verdict, found.position) == ("different", 4)
    assert found.margin > 2 * found.rounding


class TwoFaced:
    """A target whose two ways of computing one prefix differ by more than its two best tokens do."""

    end_ids: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.fresh = True

    def reset(self) -> None:
        self.fresh = True

    def forward(self, tokens: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        logits = torch.tensor([[0.0, 1.0, 1.0 + (1e-5 if len(tokens) == 1 else -1e-5)]])
        return logits.expand(len(tokens), 3), torch.empty(0)


def test_place_where_the_target_disagrees_with_itself_is_a_tie() -> None:
    found = compare(TwoFaced(), [0], (1, 2, 0), (1, 1, 0))  # type: ignore[arg-type]
    assert (found.verdict, found.position) == ("tie", 1)
    assert compare(TwoFaced(), [0], (1, 2, 0), (1, 0, 0)).verdict == "different"  # type: ignore[arg-type]


def result(*rounds: tuple[int, int]) -> PromptResult:
    return PromptResult(
        where="here", tokens=1, rounds=tuple(Round(proposed=p, accepted=a) for p, a in rounds),
        comparison=Comparison(verdict="identical"), seconds_alone=1.0, seconds_speculative=0.5,
    )  # fmt: skip


def test_report_counts_gains_per_forward_and_per_place() -> None:
    report = Report(results=(result((3, 3), (3, 0)), result((3, 1), (1, 1))), chain=3, draft_step=5, weights_sha256="x")
    assert report.accepted_length == (4 + 1 + 2 + 2) / 4
    assert report.acceptance == (3 / 4, 1 / 2, 1.0)
    told = json.loads(json.dumps(report.to_json()))
    assert (told["acceptedLength"], told["targetForwards"], told["parted"]) == (2.25, 4, [])


def test_answers_in_the_prompts_are_left_out(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
        '{"messages": [{"role": "assistant", "content": "b"}]}\n{"text": "the hawk"}\n'
    )
    found = list(prompt_ids(path, TargetConfig(model=str(target))))
    tokenizer = load_tokenizer(TargetConfig(model=str(target)))
    assert [tokenizer.decode(ids) for _, ids in found] == ["<s><|user|>a<|end|><|assistant|>", "the hawk"]


def test_draft_of_another_target_is_one_sentence(tmp_path: Path, target: Path) -> None:
    folder = exported(make_root(tmp_path), tiny_draft(target), tmp_path / "draft", target)
    with pytest.raises(UserError, match="trained for"):
        Drafter(replace(read_exported(folder), embedding=None), torch.empty(VOCAB_SIZE, 64), dtype=torch.float32)


def test_vocabulary_of_the_draft_is_translated(tmp_path: Path, target: Path) -> None:
    vocab: VocabMap = build_vocab_map(np.arange(VOCAB_SIZE), 64)
    drafter = drafter_of(tmp_path, tiny_draft(target, vocab=vocab), target)
    proposed = drafter.propose(drafter.extend(torch.randn(3, 96), torch.tensor([5, 6, 7])), 6)
    assert set(proposed) <= set(vocab.target_ids().tolist())
    assert min(proposed) >= VOCAB_SIZE - 64
