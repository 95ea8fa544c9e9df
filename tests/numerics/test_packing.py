"""Packed samples against the literal reference, which knows one sample at a time: nothing crosses a border."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eyas_runtime.train.eagle3.batch import Batch, Captured, normalise
from eyas_runtime.train.eagle3.config import LkConfig, LossConfig
from eyas_runtime.train.eagle3.loss import Result
from eyas_runtime.train.eagle3.plan import make_plan
from eyas_runtime.train.eagle3.teacher import target_head
from numerics.cases import Case, a_case, a_config, a_sample, assert_same_counts, assert_same_gradients, condemned


def run_packed(
    case: Case, samples: Sequence[Captured | None], denominator: float = 1.0, verdicts: Sequence[int] = ()
) -> tuple[Result, dict[str, Tensor]]:
    """The product's result and gradients for one pack, `verdicts` being places condemned after packing."""
    return run_batch(case, condemned(normalise(samples, case.config, packed=True), verdicts), denominator)


def run_batch(case: Case, batch: Batch, denominator: float = 1.0) -> tuple[Result, dict[str, Tensor]]:
    case.draft.zero_grad()
    result = case.draft(batch, target_head(case.head, case.vocab, dtype=case.head.dtype), denominator)
    result.loss.backward()
    return result, {name: p.grad.clone() for name, p in case.draft.named_parameters() if p.grad is not None}


PACKS = {
    "mixed": (9, 4, 13, 1, 2),
    "equal-neighbours": (6, 6, 6, 9, 9),
    "one": (11,),
    "shorter-than-the-test": (3, 2, 3, 2),
    "nothing-but-single-tokens": (1, 1, 1),
}


@pytest.mark.parametrize("lengths", PACKS.values(), ids=PACKS.keys())
@pytest.mark.parametrize("steps", [1, 2, 7], ids=lambda k: f"{k}-steps")
def test_a_pack_has_the_references_loss_counts_and_gradients(lengths: tuple[int, ...], steps: int) -> None:
    case = a_case(LossConfig(steps=steps), seed=steps)
    samples = [a_sample(case.config, n, seed=i) for i, n in enumerate(lengths)]
    result, got = run_packed(case, samples, 26.0)
    total, outputs, want = case.reference(samples, 26.0)
    assert result.loss.item() == pytest.approx(total, rel=1e-12, abs=1e-15)
    for place, output in enumerate(outputs):
        assert_same_counts(result.counts, place, output)
    assert_same_gradients(got, want)


places = st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=12), st.sampled_from(["live", "hole", "verdict"]))


@settings(max_examples=30, deadline=None)
@given(pack=st.lists(places, min_size=1, max_size=6), steps=st.integers(1, 6))
def test_any_pack_of_masks_holes_and_verdicts_equals_the_reference(
    pack: list[tuple[list[int], str]], steps: int
) -> None:
    case = a_case(LossConfig(steps=steps))
    samples = [
        None if kind == "hole" else a_sample(case.config, len(m), seed=i, mask=m) for i, (m, kind) in enumerate(pack)
    ]
    live = [place for place, (_, kind) in enumerate(pack) if kind == "live"]
    result, got = run_packed(case, samples, 3.0, [place for place, (_, kind) in enumerate(pack) if kind == "verdict"])
    if live:
        total, outputs, want = case.reference([s for i, s in enumerate(samples) if s is not None and i in live], 3.0)
        assert result.loss.item() == pytest.approx(total, rel=1e-11, abs=1e-14)
        for place, output in zip(live, outputs, strict=True):
            assert_same_counts(result.counts, place, output)
        assert_same_gradients(got, want, rtol=1e-8)
    for place in set(range(len(pack))) - set(live):
        assert not result.counts[:, :, place].any()


@pytest.mark.parametrize("shape", [{"fc_norm": True, "norm_output": True}, {"num_kv_heads": 1}], ids=["3.1", "gqa"])
@pytest.mark.parametrize("lk", [None, LkConfig(kind="lambda")], ids=["kl", "lk"])
def test_variants_and_losses_pack_too(shape: dict[str, object], lk: LkConfig | None) -> None:
    case = a_case(LossConfig(steps=3, lk=lk), **shape)
    samples = [a_sample(case.config, n) for n in (8, 3, 11)]
    result, got = run_packed(case, samples, 22.0)
    total, _, want = case.reference(samples, 22.0)
    assert result.loss.item() == pytest.approx(total, rel=1e-12)
    assert_same_gradients(got, want, rtol=1e-8)


def test_a_pack_of_one_has_the_bits_of_a_batch_of_one() -> None:
    case = a_case()
    samples = [a_sample(case.config, 11)]
    (packed, got), (padded, want) = run_packed(case, samples, 11.0), case.run(samples, 11.0)
    assert torch.equal(packed.loss, padded.loss)
    assert torch.equal(packed.counts, padded.counts)
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_the_same_pack_gives_the_same_bits() -> None:
    case = a_case()
    samples = [a_sample(case.config, n) for n in (9, 4, 4, 13)]
    (first, one), (second, two) = run_packed(case, samples), run_packed(case, samples)
    assert torch.equal(first.loss, second.loss)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_nothing_of_a_neighbour_reaches_a_samples_counts() -> None:
    """Bit for bit: every number of both neighbours changes, and the one between them does not notice."""
    case = a_case(LossConfig(steps=5), draft_vocab_size=29)
    middle = a_sample(case.config, 7, mask=[1] * 7)
    counts = []
    for seed in (1, 2):
        left, right = (a_sample(case.config, n, seed=seed, mask=[1] * n) for n in (6, 5))
        counts.append(run_packed(case, [left, middle, right])[0].counts)
    assert torch.equal(counts[0][:, :, 1], counts[1][:, :, 1])
    assert not torch.equal(counts[0][0, :, 0], counts[1][0, :, 0])


@pytest.mark.parametrize("field", ["aux", "target"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_sample_that_is_not_finite_is_the_only_one_of_its_pack_that_shows_it(field: str, value: float) -> None:
    case = a_case()
    batch = normalise([a_sample(case.config, n, mask=[1] * n) for n in (9, 12, 7)], case.config, packed=True)
    getattr(batch, field)[0, batch.starts[1] + 4, 2] = value
    counts = run_batch(case, batch)[0].counts
    assert torch.isfinite(counts).flatten(0, 1).all(0).tolist() == [True, False, True]


def test_a_condemned_sample_leaves_its_pack_as_a_hole_would_bit_for_bit() -> None:
    case = a_case()
    samples = [a_sample(case.config, n) for n in (9, 12, 7)]
    poison = replace(samples[1], aux_hidden_state=torch.full_like(samples[1].aux_hidden_state, torch.nan))
    without_it, got = run_packed(case, [samples[0], poison, samples[2]], 5.0, verdicts=[1])
    hole, want = run_packed(case, [samples[0], None, samples[2]], 5.0)
    assert torch.equal(without_it.loss, hole.loss)
    assert torch.equal(without_it.counts, hole.counts)
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_a_pack_of_holes_gives_zero_gradients_to_every_parameter() -> None:
    case = a_case()
    for samples in ([None], [None, None]):
        result, got = run_packed(case, samples)
        assert result.loss.item() == 0
        assert set(got) == {name for name, _ in case.draft.named_parameters()}
        assert all(not gradient.any() for gradient in got.values())


def test_a_pack_has_a_slot_for_every_key_and_for_nothing_else() -> None:
    case = a_case(LossConfig(steps=3))
    late = a_sample(case.config, 8, mask=[0] * 5 + [1] * 3)
    mute = a_sample(case.config, 30, mask=[0] * 30)
    twin = a_sample(case.config, 8, mask=[1] * 8)
    batch = normalise([late, mute, twin, None, a_sample(case.config, 4, mask=[1] * 4)], case.config, packed=True)
    plan = make_plan(batch, 3)
    assert batch.input_ids.shape == (1, 8 + 30 + 8 + 4)
    assert plan.blocks == ((2, 7), (1, 3))
    assert plan.positions.tolist() == [*range(7), *range(7), *range(3)]
    assert torch.equal(plan.key_slots, torch.arange(17))


@settings(max_examples=50, deadline=None)
@given(masks=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=2, max_size=5), k=st.integers(1, 5))
def test_the_plan_of_a_pack_is_its_samples_plans_one_after_the_other(masks: list[list[int]], k: int) -> None:
    config = a_config()
    samples = [a_sample(config, len(mask), mask=mask) for mask in masks]
    plan = make_plan(normalise(samples, config, packed=True), k)
    keys = rows = supervised = 0
    spans = [span for count, span in plan.blocks for _ in range(count)]
    for number, sample in enumerate(samples):
        alone = make_plan(normalise([sample], config), k)
        p, r, n = alone.positions.numel(), alone.query_rows.numel(), alone.supervised.numel()
        at_rows, at_supervised = slice(rows, rows + r), slice(supervised, supervised + n)
        assert torch.equal(plan.positions[keys : keys + p], alone.positions)
        assert torch.equal(plan.query_rows[at_rows], alone.query_rows + keys)
        for step in range(k):
            assert torch.equal(plan.shifted[step][at_rows], alone.shifted[step] + rows)
        pairs = torch.where(alone.pair_rows >= 0, alone.pair_rows + rows, -1)
        assert torch.equal(plan.pair_rows[:, at_supervised], pairs)
        assert torch.equal(plan.offset[at_supervised], alone.offset)
        assert plan.sample[at_supervised].tolist() == [number] * n
        assert not p or spans.pop(0) == p
        keys, rows, supervised = keys + p, rows + r, supervised + n
    assert (plan.key_rows.numel(), plan.query_rows.numel(), plan.supervised.numel()) == (keys, rows, supervised)


def test_a_pack_keeps_no_more_for_its_backward_than_one_sample_as_long_as_the_pack() -> None:
    case = a_case(LossConfig(steps=3))

    def kept(lengths: Sequence[int], *, packed: bool) -> int:
        samples = [a_sample(case.config, n, mask=[1] * n) for n in lengths]
        return _saved_bytes(case, normalise(samples, case.config, packed=packed))

    one_long_and_many_short = (36, *[3] * 8)
    alone = kept([sum(one_long_and_many_short)], packed=True)
    assert kept(one_long_and_many_short, packed=True) <= alone < kept(one_long_and_many_short, packed=False)


def _saved_bytes(case: Case, batch: Batch) -> int:
    """Bytes of the batch and of what autograd keeps of it; tensors that are kept twice count twice."""
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        case.draft(batch, target_head(case.head, case.vocab, dtype=torch.float64), 1.0)
    return sum(sizes) + sum(t.numel() * t.element_size() for t in (batch.aux, batch.target))
