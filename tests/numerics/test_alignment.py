"""Which input reaches which loss: probed by perturbation, without trusting the reference's own shifts."""

from dataclasses import replace

import pytest
import torch

from eyas_runtime.train.eagle3.batch import Captured
from eyas_runtime.train.eagle3.config import LossConfig
from numerics.cases import Case, a_case, a_sample

LENGTH, STEPS = 10, 3


def only(position: int) -> list[int]:
    return [int(t == position) for t in range(LENGTH)]


@pytest.fixture
def case() -> Case:
    # With the whole vocabulary every supervised position is a pair, so that masks alone decide.
    return a_case(LossConfig(steps=STEPS), draft_vocab_size=29)


def losses(case: Case, sample: Captured) -> torch.Tensor:
    return case.run([sample])[0].counts[0, :, 0]


def changed(tensor: torch.Tensor, position: int) -> torch.Tensor:
    out = tensor.clone()
    out[position] = (out[position] + 1) % 29 if out.dtype == torch.int64 else out[position] + 1.0
    return out


@pytest.mark.parametrize("supervised", [2, 5, 8])
def test_position_t_learns_the_targets_view_after_token_t_plus_one(case: Case, supervised: int) -> None:
    sample = a_sample(case.config, LENGTH, mask=only(supervised))
    base = losses(case, sample)
    for t in range(LENGTH):
        moved = losses(case, replace(sample, hidden_state=changed(sample.hidden_state, t)))
        assert (not torch.equal(moved, base)) == (t == supervised + 1)


@pytest.mark.parametrize("supervised", [2, 5, 8])
def test_step_k_at_t_reads_aux_up_to_t_and_tokens_up_to_t_plus_k_plus_one(case: Case, supervised: int) -> None:
    """The loss of step k whose teacher is position s is made at t = s - k."""
    sample = a_sample(case.config, LENGTH, mask=only(supervised))
    base = losses(case, sample)
    for position in range(LENGTH):
        by_aux = losses(case, replace(sample, aux_hidden_state=changed(sample.aux_hidden_state, position)))
        by_token = losses(case, replace(sample, input_ids=changed(sample.input_ids, position)))
        for k in range(STEPS):
            t = supervised - k
            assert (by_aux[k] != base[k]).item() == (position <= t), (position, k)
            assert (by_token[k] != base[k]).item() == (1 <= position <= t + k + 1), (position, k)


def test_a_step_whose_position_would_be_negative_does_not_exist(case: Case) -> None:
    result, _ = case.run([a_sample(case.config, LENGTH, mask=only(1))])
    assert result.counts[2, :, 0].tolist() == [1, 1, 0]
    assert result.counts[4, :, 0].tolist() == [1, 1, 0]


def test_the_last_position_is_never_supervised_whoever_made_the_mask(case: Case) -> None:
    result, _ = case.run([a_sample(case.config, LENGTH, mask=only(LENGTH - 1))])
    assert not result.counts.any()


def test_a_cut_sample_masks_the_last_position_that_is_left() -> None:
    case = a_case(draft_vocab_size=29, max_position=6)
    result, _ = case.run([a_sample(case.config, LENGTH, mask=[1] * LENGTH)])
    assert result.counts[2, 0, 0] == 5


def test_the_token_that_the_draft_guesses_is_compared_in_target_ids() -> None:
    """With a draft that always guesses one token, accuracy is the share of positions where it is the teacher's."""
    case = a_case(LossConfig(steps=1), draft_vocab_size=5)
    sample = a_sample(case.config, 12, mask=[1] * 12)
    best = (sample.hidden_state @ case.head.T).argmax(-1)[1:]
    ids = case.vocab.target_ids().tolist()
    with torch.no_grad():
        case.draft.norm.weight.zero_()
    # All logits are equal, so the lowest draft id wins.
    result, _ = case.run([sample])
    assert result.counts[1, 0, 0] == (best == ids[0]).sum()
    assert result.counts[4, 0, 0] == sum(b in ids for b in best.tolist())


def test_a_tie_of_the_teacher_goes_to_the_lowest_token() -> None:
    case = a_case(LossConfig(steps=1))
    ids = case.vocab.target_ids().tolist()
    outside = sorted(set(range(29)) - set(ids))
    sample = a_sample(case.config, 12, mask=[1] * 12)
    for lower, upper in ((ids[0], outside[-1]), (outside[0], ids[-1])):
        case.head.zero_()
        # Both columns answer equally and best wherever the first feature is positive.
        case.head[lower, 0] = case.head[upper, 0] = 1.0
        sample.hidden_state[:, 0] = 5.0
        result, _ = case.run([sample])
        assert result.counts[4, 0, 0] == (11 if lower in ids else 0)
