"""The product against the literal reference, in float64, and what must not change its results."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas_runtime.train.eagle3 import loss as loss_module
from eyas_runtime.train.eagle3 import teacher as teacher_module
from eyas_runtime.train.eagle3.batch import normalise
from eyas_runtime.train.eagle3.config import LkConfig, LossConfig
from eyas_runtime.train.eagle3.plan import make_plan
from eyas_runtime.train.eagle3.teacher import target_head
from numerics.cases import a_case, a_sample, assert_same_counts, assert_same_gradients, condemned

SHAPES = {
    "grouped-heads": {},
    "one-key-head": {"num_kv_heads": 1},
    "no-grouping": {"num_kv_heads": 4},
    "three-to-one": {"num_heads": 9, "num_kv_heads": 3, "head_dim": 4},
    "wider-target": {"target_hidden_size": 16},
    "whole-vocabulary": {"draft_vocab_size": 29},
    "tiny-vocabulary": {"draft_vocab_size": 2},
    "eagle-3.1": {"fc_norm": True, "norm_output": True},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("steps", [1, 2, 5], ids=lambda k: f"{k}-steps")
def test_loss_counts_and_gradients_equal_the_reference(shape: dict[str, object], steps: int) -> None:
    case = a_case(LossConfig(steps=steps), seed=steps, **shape)
    samples = [a_sample(case.config, n, seed=steps) for n in (9, 4, 13)]
    result, got = case.run(samples, 26.0)
    total, outputs, want = case.reference(samples, 26.0)
    assert result.loss.item() == pytest.approx(total, rel=1e-12)
    for place, output in enumerate(outputs):
        assert_same_counts(result.counts, place, output)
    assert_same_gradients(got, want)


MASKS = {
    "everything": [1] * 10,
    "nothing": [0] * 10,
    "only-the-last-position": [0] * 9 + [1],
    "only-the-first": [1] + [0] * 9,
    "answer-at-the-end": [0] * 6 + [1] * 4,
    "answer-then-prompt": [1] * 3 + [0] * 7,
    "two-turns-with-a-gap": [0, 1, 1, 0, 0, 0, 0, 1, 1, 1],
    "alternating": [0, 1] * 5,
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_every_mask_equals_the_reference(mask: list[int]) -> None:
    case = a_case(LossConfig(steps=3))
    samples = [a_sample(case.config, 10, seed=7, mask=mask)]
    result, got = case.run(samples, 10.0)
    total, outputs, want = case.reference(samples, 10.0)
    assert result.loss.item() == pytest.approx(total, rel=1e-12, abs=1e-15)
    assert_same_counts(result.counts, 0, outputs[0])
    assert_same_gradients(got, want)


@settings(max_examples=25, deadline=None)
@given(
    masks=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), min_size=1, max_size=4),
    steps=st.integers(1, 6),
)
def test_any_lengths_and_masks_equal_the_reference(masks: list[list[int]], steps: int) -> None:
    case = a_case(LossConfig(steps=steps))
    samples = [a_sample(case.config, len(m), seed=i, mask=m) for i, m in enumerate(masks)]
    result, got = case.run(samples, 3.0)
    total, outputs, want = case.reference(samples, 3.0)
    assert result.loss.item() == pytest.approx(total, rel=1e-11, abs=1e-14)
    for place, output in enumerate(outputs):
        assert_same_counts(result.counts, place, output)
    assert_same_gradients(got, want, rtol=1e-8)


LK = {
    "alpha": LkConfig(kind="alpha"),
    "lambda": LkConfig(kind="lambda"),
    "lambda-steep": LkConfig(kind="lambda", kl_scale=0.7, kl_decay=3.0),
}


@pytest.mark.parametrize("lk", LK.values(), ids=LK.keys())
def test_lk_losses_equal_the_reference(lk: LkConfig) -> None:
    case = a_case(LossConfig(steps=3, lk=lk))
    samples = [a_sample(case.config, n) for n in (8, 11)]
    result, got = case.run(samples, 19.0)
    total, outputs, want = case.reference(samples, 19.0)
    assert result.loss.item() == pytest.approx(total, rel=1e-12)
    assert_same_counts(result.counts, 1, outputs[1])
    assert_same_gradients(got, want, rtol=1e-8)


@pytest.mark.parametrize("pair_bytes", [1, 4 * 17 * 8 * 3], ids=["one-position", "three-positions"])
def test_blocks_of_positions_and_of_vocabulary_change_nothing(pair_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = a_case()
    samples = [a_sample(case.config, n) for n in (9, 12)]
    whole, want = case.run(samples, 21.0)
    monkeypatch.setattr(loss_module, "PAIR_BYTES", pair_bytes)
    monkeypatch.setattr(teacher_module, "BLOCK_BYTES", 5 * 8)
    parts, got = case.run(samples, 21.0)
    assert parts.loss.item() == pytest.approx(whole.loss.item(), rel=1e-12)
    torch.testing.assert_close(parts.counts, whole.counts, rtol=1e-12, atol=1e-12)
    assert_same_gradients(got, want)


def test_hazard_13_padding_changes_no_samples_loss_or_gradient() -> None:
    case = a_case()
    short = a_sample(case.config, 5)
    alone, want = case.run([short])
    silent = a_sample(case.config, 14, mask=[0] * 14)
    padded, got = case.run([short, silent])
    torch.testing.assert_close(padded.counts[:, :, 0], alone.counts[:, :, 0], rtol=1e-13, atol=0)
    assert_same_gradients(got, want)


def test_what_padding_and_holes_hold_reaches_nothing_not_even_a_nan() -> None:
    case = a_case()
    samples = [a_sample(case.config, 5), a_sample(case.config, 9)]
    _, want = case.run(samples)
    batch = normalise([*samples, a_sample(case.config, 7)], case.config)
    batch = condemned(batch, [2])
    for tensor in (batch.aux, batch.target):
        tensor[0, 5:] = torch.nan
        tensor[2] = torch.nan
    batch.input_ids[0, 5:] = 3
    batch.loss_mask[2] = True
    case.draft.zero_grad()
    head = target_head(case.head, case.vocab, dtype=torch.float64)
    result = case.draft(batch, head, 1.0)
    result.loss.backward()
    got = {n: p.grad for n, p in case.draft.named_parameters() if p.grad is not None}
    assert torch.isfinite(result.counts).all()
    assert not result.counts[:, :, 2].any()
    assert_same_gradients(got, want)


@pytest.mark.parametrize("field", ["aux", "target"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_sample_that_is_not_finite_shows_in_its_own_counts_alone(field: str, value: float) -> None:
    case = a_case()
    batch = normalise([a_sample(case.config, n, mask=[1] * n) for n in (9, 12, 7)], case.config)
    getattr(batch, field)[1, 4, 2] = value
    head = target_head(case.head, case.vocab, dtype=torch.float64)
    counts = case.draft(batch, head, 1.0).counts
    assert torch.isfinite(counts).flatten(0, 1).all(0).tolist() == [True, False, True]


def test_a_batch_of_holes_gives_zero_gradients_to_every_parameter() -> None:
    case = a_case()
    result, got = case.run([None, None])
    assert result.loss.item() == 0
    assert all(not gradient.any() for gradient in got.values())


def test_micro_batches_add_up_to_the_whole_window() -> None:
    case = a_case()
    samples = [a_sample(case.config, n) for n in (9, 5, 12, 7, 2)]
    _, want = case.run(samples, 35.0)
    for parts in ([samples[:2], samples[2:]], [[s] for s in samples], [[samples[4], None], samples[:4]]):
        assert_same_gradients(case.run_micro(parts, 35.0)[-1][1], want)


def test_order_and_company_of_samples_change_no_count() -> None:
    case = a_case()
    samples = [a_sample(case.config, n) for n in (9, 5, 12)]
    forward, _ = case.run(samples)
    backward, _ = case.run(samples[::-1])
    torch.testing.assert_close(forward.counts, backward.counts.flip(2), rtol=1e-12, atol=1e-12)


def test_the_denominator_divides_and_nothing_else_does() -> None:
    case = a_case()
    long, short = a_sample(case.config, 12), a_sample(case.config, 3)
    one, gradients = case.run([long, short], 1.0)
    other, divided = case.run([long, short], 15.0)
    assert other.loss.item() == pytest.approx(one.loss.item() / 15, rel=1e-12)
    torch.testing.assert_close(one.counts, other.counts)
    assert_same_gradients({n: g * 15 for n, g in divided.items()}, gradients)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_denominator_that_is_not_above_zero_is_refused(value: float) -> None:
    case = a_case()
    with pytest.raises(ValueError, match="denominator"):
        case.run([a_sample(case.config, 4)], value)


def test_evaluation_without_gradients_gives_the_same_numbers() -> None:
    case = a_case()
    samples = [a_sample(case.config, 9)]
    trained, _ = case.run(samples, 9.0)
    head = target_head(case.head, case.vocab, dtype=torch.float64)
    with torch.no_grad():
        evaluated = case.draft(normalise(samples, case.config), head, 9.0)
    assert not evaluated.loss.requires_grad
    assert torch.equal(evaluated.loss, trained.loss.detach())
    assert torch.equal(evaluated.counts, trained.counts)


def test_positions_without_influence_get_no_row() -> None:
    case = a_case(LossConfig(steps=3))
    prompt_then_answer = a_sample(case.config, 20, mask=[0] * 15 + [1] * 5)
    plan = make_plan(normalise([prompt_then_answer, a_sample(case.config, 30, mask=[0] * 30)], case.config), 3)
    assert plan.positions[plan.query_rows].tolist() == [13, 14, 15, 16, 17, 18]
    assert plan.key_rows.tolist() == list(range(19))
    assert plan.blocks == ((2, 19),)
