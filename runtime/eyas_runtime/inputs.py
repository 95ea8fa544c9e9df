"""Digests of everything outside the job that fixes what is trained: data, tokenizer, template, target.

Every producer and every rank computes them at its start and compares them with those that `prepare` recorded: a file
that somebody edited in mid-run ends the process with a sentence that names what changed, instead of giving weights
that nobody can reproduce. Torch-free. File digests are remembered within one process only, by size and modification
time: a stamp on a shared volume is a hint, never evidence.

Files are hashed whole, except feature files, of which a set may be terabytes: of those the name, the size and both
ends count. The end of a torch file is a zip directory with the CRC of every record, that of a gzip file the CRC of all.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import blake3

from eyas_contract.config import DataConfig, JobConfig, TargetConfig
from eyas_contract.errors import Transient, UserError
from eyas_contract.wire import Inputs
from eyas_runtime.offline.manifest import SUFFIX, FeatureFile, paths_of, read_manifest

END_BYTES: Final = 64 << 10
FEATURE_SUFFIXES: Final = (".ckpt", ".ckpt.gz")
TOKENIZER_FILES: Final = frozenset(
    {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
     "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tiktoken.model"}
)  # fmt: skip
TEMPLATE_FILES: Final = ("chat_template.jinja", "chat_template.json")
_Stamp = tuple[str, int, int, int]
_SEEN: dict[_Stamp, str] = {}


def digest_inputs(config: JobConfig) -> Inputs:
    """Digests of the job's inputs. Raises `UserError` for a missing file or folder, `Transient` for I/O errors."""
    return Inputs(
        data=_data(config.data),
        tokenizer=_tokenizer(config.target),
        template=_template(config.target, config.data),
        target=_target(config.target),
        evaluation="" if config.evaluation is None else _prompts(config.evaluation.prompts),
    )


def check_inputs(recorded: Inputs, found: Inputs) -> None:
    """Raise `UserError` saying what changed since the job was prepared; nothing if all digests are equal."""
    words = {
        "data": "the training data (data.prompts or data.features)",
        "tokenizer": "the target's tokenizer",
        "template": "the chat template or data.maxLength",
        "target": "the target's configuration or weights (target.model)",
        "evaluation": "the held-out prompts (evaluation.prompts)",
    }
    changed = [text for name, text in words.items() if getattr(recorded, name) != getattr(found, name)]
    if changed:
        raise UserError(f"{' and '.join(changed)} changed since this job was prepared: restore it, or start a new job")


def feature_files(source: str) -> list[Path]:
    """The feature files of a folder, ordered by relative name, or those of a manifest, in its order.

    Raises `UserError` when there are none, or a manifest names one that is not there.
    """
    root = Path(source)
    if root.is_file() and root.suffix == SUFFIX:
        return paths_of(root, read_manifest(root))
    if not root.is_dir():
        raise UserError(f"data.features {source} is neither a folder nor a manifest ({SUFFIX})")
    found = [path for path in root.rglob("*") if path.name.endswith(FEATURE_SUFFIXES) and path.is_file()]
    if not found:
        raise UserError(f"data.features {source} holds no {' or '.join(FEATURE_SUFFIXES)} file")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def listed_files(source: str) -> dict[Path, FeatureFile]:
    """What the manifest `source` says of each of its files; nothing for a folder."""
    root = Path(source)
    if not root.is_file():
        return {}
    manifest = read_manifest(root)
    return dict(zip(paths_of(root, manifest), manifest.files, strict=True))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files (and their index) of a model folder, sorted."""
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")])


def _data(data: DataConfig) -> str:
    state = blake3.blake3()
    for name in data.prompts:
        _add(state, "prompts", _of_file(Path(name)))
    for source in data.features:
        root = Path(source)
        for path in feature_files(source):
            _add(state, path.relative_to(root if root.is_dir() else root.parent).as_posix(), _of_ends(path))
    return f"blake3:{state.hexdigest()}"


def _prompts(names: Sequence[str]) -> str:
    state = blake3.blake3()
    for name in names:
        _add(state, "prompts", _of_file(Path(name)))
    return f"blake3:{state.hexdigest()}"


def _tokenizer(target: TargetConfig) -> str:
    folder = _folder(target)
    found = sorted(path for path in folder.iterdir() if path.name in TOKENIZER_FILES or path.suffix == ".tiktoken")
    return _of_named([*found, *_gguf(target, folder)])


def _template(target: TargetConfig, data: DataConfig) -> str:
    folder = _folder(target)
    state = blake3.blake3()
    _add(state, "maxLength", str(data.max_length))
    if data.chat_template is not None:
        _add(state, "given", data.chat_template)
    else:
        for path in (folder / name for name in TEMPLATE_FILES):
            if path.is_file():
                _add(state, path.name, _of_file(path))
        for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
            _add(state, path.name, _of_file(path))
    return f"blake3:{state.hexdigest()}"


def _target(target: TargetConfig) -> str:
    folder = _folder(target)
    if target.gguf_file:
        return _of_named(_gguf(target, folder))
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"target.model {folder} has no config.json; give the folder of a Hugging Face model")
    weights = weight_files(folder)
    if not weights:
        raise UserError(f"target.model {folder} has no *.safetensors file; convert its weights to safetensors first")
    return _of_named([config, *weights])


def _folder(target: TargetConfig) -> Path:
    folder = Path(target.model)
    if not folder.is_dir():
        raise UserError(f"target.model {folder} is not a folder; give the folder of a Hugging Face model")
    return folder


def _gguf(target: TargetConfig, folder: Path) -> list[Path]:
    return [folder / target.gguf_file] if target.gguf_file else []


def _of_named(paths: Sequence[Path]) -> str:
    state = blake3.blake3()
    for path in paths:
        _add(state, path.name, _of_file(path))
    return f"blake3:{state.hexdigest()}"


def _of_file(path: Path) -> str:
    try:
        stat = path.stat()
        stamp = (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if stamp not in _SEEN:
            state = blake3.blake3(max_threads=blake3.blake3.AUTO)
            if stat.st_size:
                state.update_mmap(path)
            _SEEN[stamp] = state.hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except OSError as error:
        raise Transient(f"cannot read {path}: {error.strerror}", retry_after_seconds=1.0) from error
    return _SEEN[stamp]


def _of_ends(path: Path) -> str:
    state = blake3.blake3()
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            _add(state, "size", str(size))
            state.update(file.read(END_BYTES))
            file.seek(max(0, size - END_BYTES))
            state.update(file.read(END_BYTES))
    except OSError as error:
        raise Transient(f"cannot read {path}: {error.strerror}", retry_after_seconds=1.0) from error
    return state.hexdigest()


def _add(state: blake3.blake3, *texts: str) -> None:
    # A length before each text: two lists of texts never give the same bytes.
    for text in texts:
        raw = text.encode()
        state.update(len(raw).to_bytes(8, "little") + raw)
