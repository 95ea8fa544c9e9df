"""Parameters: their names, their initial bits, what is frozen and what is saved."""

import numpy as np
import pytest
import torch

from eyas_contract.errors import Corrupt
from eyas_runtime.train.eagle3.config import LossConfig
from eyas_runtime.train.eagle3.export_keys import EXPORT_KEYS, FC_NORM_KEYS, REQUIRED
from eyas_runtime.train.eagle3.model import Draft
from eyas_runtime.train.eagle3.parameters import initialise
from eyas_runtime.train.eagle3.vocab import build_vocab_map
from numerics.cases import a_case, a_config


def a_draft(seed: int, **changes: object) -> Draft:
    config = a_config(**changes)
    vocab = build_vocab_map(np.arange(config.vocab_size), config.draft_vocab_size)
    draft = Draft(config, LossConfig(), torch.zeros(config.vocab_size, config.hidden_size), vocab)
    initialise(draft, seed)
    return draft


def test_the_state_dict_has_exactly_the_exported_names() -> None:
    assert set(a_draft(0).state_dict()) == set(EXPORT_KEYS)
    assert set(a_draft(0, fc_norm=True).state_dict()) == set(EXPORT_KEYS) | set(FC_NORM_KEYS)
    assert set(REQUIRED) <= set(EXPORT_KEYS.values())


def test_shapes_are_those_that_engines_expect() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in a_draft(0).state_dict().items()}
    assert shapes["fc.weight"] == (12, 30)
    assert shapes["midlayer.self_attn.q_proj.weight"] == (24, 24)
    assert shapes["midlayer.self_attn.k_proj.weight"] == (12, 24)
    assert shapes["lm_head.weight"] == (17, 12)
    assert shapes["t2d"] == (29,)
    assert shapes["d2t"] == (17,)


def test_the_embedding_is_frozen_and_not_saved() -> None:
    draft = a_draft(0)
    assert "embedding" not in draft.state_dict()
    assert "embedding" not in dict(draft.named_parameters())
    assert not draft.embedding.requires_grad


def test_initial_bits_depend_on_the_seed_and_the_name_alone() -> None:
    one, same, other = a_draft(1), a_draft(1), a_draft(2)
    torch.manual_seed(99)
    wider = a_draft(1, fc_norm=True)
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, dict(same.named_parameters())[name])
        assert torch.equal(parameter, dict(wider.named_parameters())[name])
        if parameter.ndim == 2:
            assert not torch.equal(parameter, dict(other.named_parameters())[name])


def test_initialising_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    a_draft(1)
    assert torch.equal(torch.rand(3), want)


def test_matrices_have_the_configured_spread_and_norms_are_ones() -> None:
    draft = a_draft(0, hidden_size=64, intermediate_size=256, initializer_range=0.05)
    assert draft.midlayer.mlp.gate_proj.weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert torch.equal(draft.norm.weight, torch.ones(64))


def test_a_vocabulary_map_or_embedding_of_another_size_is_refused() -> None:
    config = a_config()
    embedding = torch.zeros(config.vocab_size, config.hidden_size)
    with pytest.raises(Corrupt):
        Draft(config, LossConfig(), embedding, build_vocab_map(np.arange(29), 16))
    with pytest.raises(ValueError, match="embedding"):
        Draft(config, LossConfig(), embedding[:-1], build_vocab_map(np.arange(29), 17))


def test_the_buffers_are_the_vocabulary_map() -> None:
    case = a_case()
    assert case.draft.t2d.tolist() == case.vocab.t2d.tolist()
    assert (case.draft.d2t + torch.arange(17)).tolist() == case.vocab.target_ids().tolist()
