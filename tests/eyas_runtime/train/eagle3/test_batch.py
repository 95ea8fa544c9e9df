"""The normaliser: what is shifted, what is masked, what is refused."""

from dataclasses import replace

import pytest
import torch

from eyas_contract.errors import Corrupt
from eyas_runtime.train.eagle3.batch import Captured, normalise, supervised_count
from numerics.cases import a_config, a_sample

CONFIG = a_config()


def test_tokens_and_targets_move_left_and_masks_stay() -> None:
    sample = a_sample(CONFIG, 4, mask=[0, 1, 1, 1])
    batch = normalise([sample], CONFIG)
    assert batch.input_ids[0].tolist() == [*sample.input_ids[1:].tolist(), 0]
    assert torch.equal(batch.target[0, :3], sample.hidden_state[1:])
    assert not batch.target[0, 3].any()
    assert torch.equal(batch.aux[0], sample.aux_hidden_state)
    assert batch.loss_mask[0].tolist() == [False, True, True, False]


def test_samples_with_a_leading_dimension_are_the_same_samples() -> None:
    sample = a_sample(CONFIG, 5)
    boxed = Captured(
        input_ids=sample.input_ids[None],
        loss_mask=sample.loss_mask[None].float(),
        aux_hidden_state=sample.aux_hidden_state[None],
        hidden_state=sample.hidden_state[None],
    )
    for a, b in zip(normalise([sample], CONFIG), normalise([boxed], CONFIG), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_padding_is_zero_and_unsupervised_and_holes_weigh_nothing() -> None:
    batch = normalise([a_sample(CONFIG, 3, mask=[1, 1, 1]), None, a_sample(CONFIG, 6)], CONFIG)
    assert batch.lengths == (3, 1, 6)
    assert batch.weights == (1.0, 0.0, 1.0)
    assert batch.loss_mask[0].tolist() == [True, True, False, False, False, False]
    assert not batch.aux[0, 3:].any()
    assert not batch.aux[1].any()


def test_long_samples_are_cut_before_they_are_shifted() -> None:
    sample = a_sample(CONFIG, 9, mask=[1, 0, 1, 1, 0, 0, 1, 0, 1])
    batch = normalise([sample], CONFIG, max_length=4)
    cut = normalise([replace_all(sample, 4)], CONFIG)
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(batch, cut, strict=True))


def test_the_supervised_count_is_the_one_that_the_batch_trains() -> None:
    sample = a_sample(CONFIG, 9)
    assert supervised_count(sample.loss_mask) == int(normalise([sample], CONFIG).loss_mask.sum())


def test_captured_dtypes_are_kept() -> None:
    sample = a_sample(CONFIG, 3)
    low = replace(sample, aux_hidden_state=sample.aux_hidden_state.bfloat16())
    batch = normalise([None, low], CONFIG)
    assert batch.aux.dtype is torch.bfloat16
    assert batch.target.dtype is torch.float64


@pytest.mark.parametrize(
    "damage",
    [
        {"loss_mask": torch.ones(4)},
        {"aux_hidden_state": torch.zeros(5, 29)},
        {"aux_hidden_state": torch.zeros(4, 30)},
        {"hidden_state": torch.zeros(4, 10)},
        {"input_ids": torch.tensor([0, 1, 2, 3, 29])},
        {"input_ids": torch.tensor([0, 1, -2, 3, 4])},
    ],
    ids=["mask", "aux-width", "aux-length", "target-length", "id-high", "id-negative"],
)
def test_a_sample_that_contradicts_itself_is_corrupt(damage: dict[str, torch.Tensor]) -> None:
    with pytest.raises(Corrupt):
        normalise([replace(a_sample(CONFIG, 5), **damage)], CONFIG)  # type: ignore[arg-type]


def test_a_batch_of_no_places_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="hole"):
        normalise([], CONFIG)


def replace_all(sample: Captured, length: int) -> Captured:
    return Captured(
        input_ids=sample.input_ids[:length],
        loss_mask=sample.loss_mask[:length],
        aux_hidden_state=sample.aux_hidden_state[:length],
        hidden_state=sample.hidden_state[:length],
    )
