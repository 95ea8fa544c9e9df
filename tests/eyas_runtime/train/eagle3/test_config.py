"""The draft's shape from a target's config.json, and the numbers that are refused."""

import pytest

from eyas_contract.errors import UserError
from eyas_runtime.train.eagle3.config import DraftConfig, LossConfig, capture_layers, denominator

LLAMA = {
    "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3,
    "vocab_size": 49152, "rms_norm_eps": 1e-5, "rope_theta": 100000, "num_hidden_layers": 30,
}  # fmt: skip


def test_a_llama_like_target_gives_one_layer_with_its_own_head_layout() -> None:
    config = DraftConfig.from_target_config(LLAMA, draft_vocab_size=8192, max_position=256)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (9, 3, 64)
    assert (config.hidden_size, config.target_hidden_size, config.intermediate_size) == (576, 576, 1536)
    assert (config.vocab_size, config.draft_vocab_size, config.max_position) == (49152, 8192, 256)
    assert config.rope_theta == 100000
    assert not config.fc_norm


def test_the_newer_form_of_rotary_settings_and_nested_text_models_are_read() -> None:
    text = {k: v for k, v in LLAMA.items() if k != "rope_theta"}
    text["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}
    text["head_dim"] = 128
    config = DraftConfig.from_target_config({"text_config": text}, draft_vocab_size=8, max_position=9)
    assert config.rope_theta == 5e5
    assert config.head_dim == 128


def test_missing_key_heads_mean_one_for_each_head() -> None:
    target = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
    assert DraftConfig.from_target_config(target, draft_vocab_size=8, max_position=9).num_kv_heads == 9


def test_a_small_target_vocabulary_bounds_the_drafts() -> None:
    config = DraftConfig.from_target_config({**LLAMA, "vocab_size": 300}, draft_vocab_size=8192, max_position=9)
    assert config.draft_vocab_size == 300


@pytest.mark.parametrize("key", ["hidden_size", "num_attention_heads", "vocab_size", "intermediate_size"])
def test_a_target_without_a_needed_number_is_refused_by_name(key: str) -> None:
    with pytest.raises(UserError, match=key):
        DraftConfig.from_target_config({k: v for k, v in LLAMA.items() if k != key}, draft_vocab_size=8, max_position=9)


@pytest.mark.parametrize(
    "change", [{"num_key_value_heads": 2}, {"head_dim": 63}, {"hidden_size": 0}], ids=["groups", "odd", "zero"]
)
def test_numbers_that_do_not_fit_together_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(UserError):
        DraftConfig.from_target_config({**LLAMA, **change}, draft_vocab_size=8, max_position=9)


@pytest.mark.parametrize(
    "values", [{"steps": 0}, {"steps": 33}, {"decay": 0.0}, {"decay": 1.1}, {"normalisation": "Mean"}]
)
def test_an_objective_out_of_range_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(UserError):
        LossConfig(**values)  # type: ignore[arg-type]


def test_default_capture_layers() -> None:
    assert capture_layers(30) == (1, 14, 26)
    assert capture_layers(32) == (1, 15, 28)
    with pytest.raises(UserError, match="capture layers"):
        capture_layers(4)


def test_the_denominator_comes_from_true_counts() -> None:
    assert denominator("AllPositions", num_tokens=50, num_supervised=20) == 50
    assert denominator("Supervised", num_tokens=50, num_supervised=20) == 20
    assert denominator("Supervised", num_tokens=50, num_supervised=0) == 1
