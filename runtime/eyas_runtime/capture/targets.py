"""Shape of the target, without loading it."""

from dataclasses import dataclass
from typing import Final

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_runtime.target_files import target_config

_OTHER_NAMES: Final = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer"}
"""As configurations of the GPT-2 kind call them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetShape:
    """The numbers of a target that others size things by."""

    hidden_size: int
    vocab_size: int
    layers: int


def target_shape(target: TargetConfig) -> TargetShape:
    """Width, vocabulary and number of layers; of a model with several towers, those of the text part.

    Raises `UserError` when the configuration cannot be read or lacks one.
    """
    whole = target_config(target)
    text = whole.get("text_config")
    config = text if isinstance(text, dict) else whole
    numbers = {}
    for name in ("hidden_size", "vocab_size", "num_hidden_layers"):
        value = config.get(name, config.get(_OTHER_NAMES.get(name, name)))
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"the configuration of the target in {target.model} has no whole number {name}")
        numbers[name] = value
    return TargetShape(
        hidden_size=numbers["hidden_size"], vocab_size=numbers["vocab_size"], layers=numbers["num_hidden_layers"]
    )
