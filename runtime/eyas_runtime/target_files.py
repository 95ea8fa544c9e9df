"""The target's folder as files: its JSON files with their limits, its configuration. For capture and training alike.

Only a GGUF target needs transformers, which is imported then.
"""

import json
from pathlib import Path
from typing import Any, Final

from eyas_contract.config import TargetConfig
from eyas_contract.decoding import NOT_JSON
from eyas_contract.errors import UserError

JSON_BYTES_MAX: Final = 16 << 20
"""An index of the largest models has some 100,000 tensors of about 100 bytes."""


def target_config(target: TargetConfig) -> dict[str, Any]:
    """The target's `config.json` (of a GGUF file: what transformers reads from it). Raises `UserError`."""
    folder = Path(target.model)
    if target.gguf_file:
        from transformers import AutoConfig

        found: dict[str, Any] = AutoConfig.from_pretrained(
            str(folder), gguf_file=target.gguf_file, local_files_only=True, trust_remote_code=False
        ).to_dict()
        return found
    return read_object(folder / "config.json")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises `UserError` naming the file."""
    try:
        with path.open("rb") as file:
            raw = file.read(JSON_BYTES_MAX + 1)
        if len(raw) > JSON_BYTES_MAX:
            raise UserError(f"{path} has more than {JSON_BYTES_MAX} bytes")
        found = json.loads(raw)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except NOT_JSON as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object")
    return found
