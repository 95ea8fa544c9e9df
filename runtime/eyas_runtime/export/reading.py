"""Reads an exported draft back, of either layout: what `eyas eval` runs is what an engine would get."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eyas_contract.decoding import NOT_JSON
from eyas_contract.errors import Corrupt, UserError
from eyas_runtime.export.draft import CONFIG_FILE, EMBEDDING_KEY, WEIGHTS_FILE, check_complete
from eyas_runtime.train.eagle3.config import DraftConfig
from eyas_runtime.train.eagle3.vocab import VocabMap, check_vocab_map


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedDraft:
    """An exported draft in memory."""

    config: DraftConfig
    tensors: Mapping[str, Tensor]
    """By exported names, in the stored dtype."""
    vocab: VocabMap
    embedding: Tensor | None
    """[V, H], if the layout holds it; else it is the target's."""
    facts: Mapping[str, Any]
    """`step`, `weights_sha256`, `job_uid` of the checkpoint it came from; empty for a foreign draft."""


def read_exported(folder: Path) -> ExportedDraft:
    """The draft in `folder`. Raises `UserError` when it is not one, `Corrupt` when it contradicts itself."""
    raw = _config(folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(f"{folder} has no {WEIGHTS_FILE}; give the folder of an exported draft")
    try:
        loaded = load_file(path)
    except SafetensorError as error:
        raise Corrupt(f"{path} is damaged: {error}") from error
    tensors = {name.removeprefix("draft_model."): tensor for name, tensor in loaded.items()}
    check_complete(tensors)
    embedding = tensors.pop(EMBEDDING_KEY, None)
    d2t, t2d = tensors.pop("d2t").numpy(), tensors.pop("t2d").numpy()
    vocab = VocabMap(d2t=d2t.astype(np.int64), t2d=t2d.astype(np.bool_))
    config = _draft_config(raw, folder)
    check_vocab_map(vocab, vocab_size=config.vocab_size, draft_vocab_size=config.draft_vocab_size)
    return ExportedDraft(
        config=config, tensors=tensors, vocab=vocab, embedding=embedding, facts=dict(raw.get("eyas") or {})
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / CONFIG_FILE).read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {folder / CONFIG_FILE}: {error.strerror}; give an exported draft") from error
    except NOT_JSON as error:
        raise UserError(f"{folder / CONFIG_FILE} is not JSON: {error}") from error
    if not isinstance(found, dict) or "draft_vocab_size" not in found:
        raise UserError(f"{folder / CONFIG_FILE} describes no EAGLE3 draft (draft_vocab_size is missing)")
    return found


def _draft_config(raw: Mapping[str, Any], folder: Path) -> DraftConfig:
    rope = raw.get("rope_parameters") or {}
    heads = raw.get("num_attention_heads", 0)
    try:
        return DraftConfig(
            hidden_size=raw["hidden_size"],
            intermediate_size=raw["intermediate_size"],
            num_heads=heads,
            num_kv_heads=raw.get("num_key_value_heads") or heads,
            head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
            target_hidden_size=raw.get("target_hidden_size") or raw["hidden_size"],
            vocab_size=raw["vocab_size"],
            draft_vocab_size=raw["draft_vocab_size"],
            max_position=raw["max_position_embeddings"],
            rms_norm_eps=raw.get("rms_norm_eps", 1e-5),
            rope_theta=float(rope.get("rope_theta") or raw.get("rope_theta") or 10000.0),
            fc_norm=bool(raw.get("fc_norm", False)),
            norm_output=bool(raw.get("norm_output", False)),
        )
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise Corrupt(f"{folder / CONFIG_FILE} does not describe an EAGLE3 draft: {error!r}") from error
