"""The two matrices of the target that training needs, its input embedding and its output matrix, and nothing else.

From safetensors they are found by name (tied matrices included), from a GGUF file by GGUF's own names; a model whose
names are strange is loaded whole by transformers. Reading two tensors takes seconds where a whole model takes minutes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_runtime.target_files import read_object

EMBEDDING_NAMES: Final = ("embed_tokens.weight", "tok_embeddings.weight", "wte.weight", "embed_in.weight")
OUTPUT_NAMES: Final = ("lm_head.weight", "output.weight", "embed_out.weight")
GGUF_EMBEDDING: Final = "token_embd.weight"
GGUF_OUTPUT: Final = "output.weight"


class TargetMatrices(NamedTuple):
    """Both on the CPU, in the dtype asked for; the same tensor twice when they are tied."""

    embedding: Tensor
    """[V, H]."""
    output: Tensor
    """[V, H]."""


def load_matrices(target: TargetConfig, *, dtype: torch.dtype) -> TargetMatrices:
    """The target's embedding and output matrix. Raises `UserError` when the folder cannot be served."""
    folder = Path(target.model)
    found = _from_gguf(folder / target.gguf_file) if target.gguf_file else _from_safetensors(folder)
    embedding, output = found if found is not None else _from_transformers(target, dtype)
    if embedding.ndim != 2 or embedding.shape != output.shape:
        raise UserError(
            f"the target in {folder} has an embedding {tuple(embedding.shape)} and an output matrix "
            f"{tuple(output.shape)}; EAGLE3 needs two equal [vocabulary, hidden] matrices"
        )
    converted = embedding.to(dtype)
    return TargetMatrices(converted, converted if output is embedding else output.to(dtype))


def _from_safetensors(folder: Path) -> tuple[Tensor, Tensor] | None:
    files = _files_by_tensor(folder)
    embedding = _only(files, EMBEDDING_NAMES)
    if embedding is None:
        return None
    output = _only(files, OUTPUT_NAMES)
    matrix = _read(files[embedding], embedding)
    if output is None or output == embedding:
        return (matrix, matrix) if _is_tied(folder) else None
    return matrix, _read(files[output], output)


def _files_by_tensor(folder: Path) -> dict[str, Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_object(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise UserError(f"{index} has no weight_map")
        return {str(name): folder / Path(str(file)).name for name, file in weight_map.items()}
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with _open(path) as file:
            found.update(dict.fromkeys(file.keys(), path))
    return found


def _only(files: Mapping[str, Path], endings: tuple[str, ...]) -> str | None:
    """The one tensor whose name ends so; None when there is none or several (towers that are not text)."""
    for ending in endings:
        names = [name for name in files if name == ending or name.endswith(f".{ending}")]
        if len(names) == 1:
            return names[0]
        if names:
            return None
    return None


def _is_tied(folder: Path) -> bool:
    config = read_object(folder / "config.json")
    text = config.get("text_config", config)
    # A missing field means what transformers means by it: tied.
    return bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", True)))


def _open(path: Path) -> Any:  # noqa: ANN401  safetensors ships no types
    try:
        return safe_open(str(path), framework="pt", device="cpu")
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _read(path: Path, name: str) -> Tensor:
    with _open(path) as file:
        tensor: Tensor = file.get_tensor(name)
    return tensor


def _from_gguf(path: Path) -> tuple[Tensor, Tensor]:
    import gguf

    try:
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(str(path)).tensors}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read the GGUF file {path}: {error}") from error
    if GGUF_EMBEDDING not in tensors:
        raise UserError(f"{path} has no tensor {GGUF_EMBEDDING}")

    def matrix(name: str) -> Tensor:
        tensor = tensors[name]
        return torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())

    embedding = matrix(GGUF_EMBEDDING)
    return embedding, matrix(GGUF_OUTPUT) if GGUF_OUTPUT in tensors else embedding


def _from_transformers(target: TargetConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    from eyas_runtime.capture.transformers_model import load_causal_lm

    model = load_causal_lm(target, dtype=dtype)
    embedding: Tensor = model.get_input_embeddings().weight.detach()
    head = model.get_output_embeddings()
    if head is None:
        raise UserError(f"the target in {target.model} has no output matrix")
    output: Tensor = head.weight.detach()
    return embedding, embedding if output.data_ptr() == embedding.data_ptr() else output
