"""Shape and matrices of the target, without loading the rest of it.

The trainer needs the target's embedding and output matrix; a model of many gigabytes is not loaded for two matrices.
Reads safetensors (and GGUF through transformers, which is slow: convert such a target once, see `gguf`).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from safetensors import safe_open
from torch import Tensor

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_runtime.capture.transformers_model import load_causal_lm

EMBEDDING_NAMES: Final = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
OUTPUT_NAMES: Final = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetShape:
    """The numbers of a target that others size things by."""

    hidden_size: int
    vocab_size: int
    layers: int


def read_config(target: TargetConfig) -> dict[str, Any]:
    """The target's configuration as a mapping; of a model with several towers, the text part. Raises `UserError`."""
    if target.gguf_file:
        from transformers import AutoConfig

        loaded = AutoConfig.from_pretrained(target.model, gguf_file=target.gguf_file, local_files_only=True)
        return dict(loaded.to_dict())
    path = Path(target.model) / "config.json"
    try:
        whole: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise UserError(f"cannot read the target's {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise UserError(f"the target's {path} is not valid: {error}") from error
    text = whole.get("text_config")
    return text if isinstance(text, dict) else whole


def target_shape(target: TargetConfig) -> TargetShape:
    """Width, vocabulary and number of layers. Raises `UserError` when the configuration lacks one."""
    config = read_config(target)
    numbers = {}
    for name in ("hidden_size", "vocab_size", "num_hidden_layers"):
        value = config.get(name, config.get({"hidden_size": "n_embd", "num_hidden_layers": "n_layer"}.get(name, name)))
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"the configuration of the target in {target.model} has no whole number {name}")
        numbers[name] = value
    return TargetShape(
        hidden_size=numbers["hidden_size"], vocab_size=numbers["vocab_size"], layers=numbers["num_hidden_layers"]
    )


def load_matrices(target: TargetConfig, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(embedding [V, H], output matrix [V, H]) in `dtype`; the same tensor twice where the target ties them."""
    if target.gguf_file:
        model = load_causal_lm(target, dtype=dtype)
        return model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()
    shape = target_shape(target)
    names = dict(_tensor_files(Path(target.model)))
    embedding = _read(names, EMBEDDING_NAMES, target).to(dtype)
    tied = not any(name.endswith(OUTPUT_NAMES) for name in names)
    output = embedding if tied else _read(names, OUTPUT_NAMES, target).to(dtype)
    for what, matrix in (("embedding", embedding), ("output matrix", output)):
        if matrix.shape != (shape.vocab_size, shape.hidden_size):
            raise UserError(
                f"the {what} of the target in {target.model} has shape {tuple(matrix.shape)}, but its configuration "
                f"says {(shape.vocab_size, shape.hidden_size)}"
            )
    return embedding, output


def _tensor_files(folder: Path) -> Iterator[tuple[str, Path]]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        for name, file in json.loads(index.read_bytes())["weight_map"].items():
            yield name, folder / Path(file).name
        return
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                yield name, path


def _read(names: dict[str, Path], endings: tuple[str, ...], target: TargetConfig) -> Tensor:
    found = [name for name in names if name.endswith(endings)]
    if len(found) != 1:
        raise UserError(f"the target in {target.model} has {len(found)} tensors called {' or '.join(endings)}, not one")
    with safe_open(names[found[0]], framework="pt") as opened:
        tensor: Tensor = opened.get_tensor(found[0])
    return tensor
