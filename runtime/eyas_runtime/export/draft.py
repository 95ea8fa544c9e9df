"""Writes a draft's folder in one of two layouts.

`sglang` (vLLM reads the same): the keys of serving engines, no embedding (it is the target's), bfloat16. `huggingface`:
the same keys and the target's embedding, float32, so that the folder stands alone and training can start from it again.
`config.json` carries RoPE in the old form (`rope_theta`) and in the new one (`rope_parameters`), because engines of
both generations read it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_runtime import files
from eyas_runtime.export.source import DraftSource
from eyas_runtime.train.eagle3.config import DraftConfig
from eyas_runtime.train.eagle3.export_keys import EXPORT_KEYS, FC_NORM_KEYS, REQUIRED
from eyas_runtime.train.target_head import load_matrices

Layout = Literal["sglang", "huggingface"]
LAYOUTS: Final[tuple[str, ...]] = get_args(Layout)
WEIGHTS_FILE: Final = "model.safetensors"
CONFIG_FILE: Final = "config.json"
EMBEDDING_KEY: Final = "embed_tokens.weight"
ARCHITECTURE: Final = "LlamaForCausalLMEagle3"
_DTYPES: Final[dict[str, torch.dtype]] = {"sglang": torch.bfloat16, "huggingface": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    path: Path
    layout: str
    step: int
    tensors: int
    nbytes: int
    weights_sha256: str
    """Of the trained float32 weights, as the checkpoint's manifest has it."""


def export_draft(
    source: DraftSource,
    output: Path,
    *,
    layout: str = "sglang",
    target: TargetConfig | None = None,
    capture_layers: tuple[int, int, int] | None = None,
) -> Exported:
    """Write `source` to the new folder `output`. `target` gives the embedding that `huggingface` needs.

    `capture_layers`: written for engines when they are not the defaults. Raises `UserError` naming what is missing or
    in the way.
    """
    if layout not in _DTYPES:
        raise UserError(f"layout {layout!r} is none of {', '.join(LAYOUTS)}")
    if output.exists():
        raise UserError(f"{output} exists; give a new folder")
    tensors = _tensors(source, _DTYPES[layout])
    if layout == "huggingface":
        tensors[EMBEDDING_KEY] = _embedding(source.config, target, _DTYPES[layout])
    check_complete(tensors)
    config = draft_config_json(source, _DTYPES[layout], capture_layers)
    raw = save(tensors, metadata={"format": "pt"})
    _write(output, {WEIGHTS_FILE: raw, CONFIG_FILE: json.dumps(config, indent=2, sort_keys=True).encode() + b"\n"})
    return Exported(
        path=output,
        layout=layout,
        step=source.step,
        tensors=len(tensors),
        nbytes=len(raw),
        weights_sha256=source.manifest.weights_sha256,
    )


def check_complete(tensors: Mapping[str, Tensor]) -> None:
    """Raise `UserError` naming the keys that no engine can do without."""
    missing = [name for name in REQUIRED if name not in tensors]
    if missing:
        raise UserError(f"the draft has no {', '.join(missing)}; engines cannot serve it, so nothing was exported")


def _tensors(source: DraftSource, dtype: torch.dtype) -> dict[str, Tensor]:
    names = {**EXPORT_KEYS, **(FC_NORM_KEYS if source.config.fc_norm else {})}
    found: dict[str, Tensor] = {
        "d2t": torch.from_numpy(source.vocab.d2t.copy()),
        "t2d": torch.from_numpy(source.vocab.t2d.copy()),
    }
    for name, exported in names.items():
        if exported in found:
            continue
        if name not in source.tensors:
            raise UserError(f"the checkpoint in {source.directory} has no {name}, so nothing was exported")
        found[exported] = source.tensors[name].to(dtype).contiguous()
    foreign = sorted(set(source.tensors) - set(names))
    if foreign:
        raise UserError(f"the checkpoint in {source.directory} holds {foreign[0]}, which no layout has a place for")
    return found


def _embedding(config: DraftConfig, target: TargetConfig | None, dtype: torch.dtype) -> Tensor:
    if target is None:
        raise UserError("the huggingface layout holds the target's embedding: give the target's folder too")
    embedding = load_matrices(target, dtype=dtype).embedding
    if embedding.shape != (config.vocab_size, config.target_hidden_size):
        raise UserError(
            f"the target in {target.model} has an embedding {tuple(embedding.shape)}, but the draft was trained for "
            f"{(config.vocab_size, config.target_hidden_size)}: give the target it was trained for"
        )
    return embedding.contiguous()


def draft_config_json(
    source: DraftSource, dtype: torch.dtype, capture_layers: tuple[int, int, int] | None
) -> dict[str, Any]:
    """`config.json` of an exported draft."""
    config, name = source.config, str(dtype).removeprefix("torch.")
    found: dict[str, Any] = {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        "attention_bias": False,
        "mlp_bias": False,
        "draft_vocab_size": config.draft_vocab_size,
        "dtype": name,
        "fc_norm": config.fc_norm,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "initializer_range": config.initializer_range,
        "max_position_embeddings": config.max_position,
        "norm_output": config.norm_output,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": 1,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "target_hidden_size": config.target_hidden_size,
        "tie_word_embeddings": False,
        "torch_dtype": name,
        "use_cache": True,
        "vocab_size": config.vocab_size,
        "eyas": {
            "job_uid": source.manifest.job_uid,
            "step": source.step,
            "weights_sha256": source.manifest.weights_sha256,
        },
    }
    if capture_layers is not None:
        found["eagle_config"] = {
            "eagle_aux_hidden_state_layer_ids": list(capture_layers),
            "use_aux_hidden_state": True,
        }
    return found


def _write(output: Path, contents: Mapping[str, bytes]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    staged = output.with_name(f".{output.name}.partial")
    files.remove_tree(staged)
    staged.mkdir()
    for name, raw in contents.items():
        files.publish_bytes(staged / name, raw)
    files.publish_directory(staged, output)
