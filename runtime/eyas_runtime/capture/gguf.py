"""Converts a GGUF model into a Hugging Face folder, once.

transformers reads GGUF by dequantising every tensor, which takes many seconds at every start of every process. The
folder made here (config, float32 safetensors, tokenizer, chat template) starts in a second and gives the same values.
Its name carries the digest of the GGUF file, so it is never stale; it appears complete or not at all, and of several
processes that convert at once the first one wins.
"""

import re
from pathlib import Path
from typing import Final

import blake3
import torch

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_runtime import files, temporary
from eyas_runtime.capture.tokenise import load_tokenizer
from eyas_runtime.capture.transformers_model import load_causal_lm

FORMAT: Final = 1
"""Rises when the content of a converted folder changes."""


def convert_gguf(folder: Path, gguf_file: str, cache: Path) -> Path:
    """The converted folder of `folder`/`gguf_file` below `cache`, made now if it is not there yet.

    Raises `UserError` when the file is absent or not a causal language model that transformers reads.
    """
    source = folder / gguf_file
    if not source.is_file():
        raise UserError(f"{source} is not there; give the folder and the name of a GGUF file")
    stem = re.sub(r"[^A-Za-z0-9_.-]", "-", Path(gguf_file).stem)
    target = cache / f"{stem}-{FORMAT}-{_digest(source)[:16]}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    staged = cache / temporary.name_for(temporary.own_identity())
    staged.mkdir()
    try:
        _convert(TargetConfig(model=str(folder), gguf_file=gguf_file), staged)
        for path in staged.iterdir():
            files.sync_file(path)
        files.publish_directory(staged, target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        files.remove_tree(staged)
    return target


def _convert(source: TargetConfig, target: Path) -> None:
    load_tokenizer(source).save_pretrained(target)
    model = load_causal_lm(source, dtype=torch.float32)
    # The values are plain float32 by now, but transformers still calls the model quantised and refuses to save it.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.config.name_or_path = ""
    model.save_pretrained(target)


def _digest(path: Path) -> str:
    return blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap(path).hexdigest()
