"""Engine for existing feature files: the only module that calls `torch.load`, and only with `weights_only=True`.

SpecForge's layout: `{input_ids, loss_mask, hidden_state, aux_hidden_state}`, tensors with a leading dimension of 1, in
`*.ckpt` (a torch zip file) or `*.ckpt.gz`. Files come from other people, so: no pickle beyond tensors, no legacy
(non-zip) format, no compressed record inside the zip (a bomb), a bound on what a gzip may grow to, and every shape is
checked against the others. Bytes depend on the file alone, so one object may serve every epoch.
"""

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

import torch
from torch import Tensor
from torch._weights_only_unpickler import UnpicklingError  # type: ignore[attr-defined]

from eyas_contract.errors import Corrupt, Transient, UserError
from eyas_contract.refs import PromptTask
from eyas_contract.wire import Fingerprint
from eyas_runtime.capture.content import content_problem
from eyas_runtime.capture.engine import (
    AUX,
    INPUT_IDS,
    LAST,
    LOSS_MASK,
    Advance,
    Features,
    Outcome,
)
from eyas_runtime.capture.fingerprint import fingerprint_of
from eyas_runtime.inputs import feature_files
from eyas_runtime.train.eagle3.config import AUX_LAYERS

FILE_BYTES_MAX: Final = 8 << 30
"""Longest feature file after decompression: 128 Ki tokens of a 7168 wide bfloat16 target are 7 GiB."""
PIECE_BYTES: Final = 1 << 20
RAW_KEYS: Final = ("input_ids", "loss_mask", "hidden_state", "aux_hidden_state")
_AS_STORED: Final = {INPUT_IDS: "input_ids", LOSS_MASK: "loss_mask", AUX: "aux_hidden_state", LAST: "hidden_state"}
_FORBIDDEN: Final = re.compile(r"\bGLOBAL ([\w.]+)")
_GZIP: Final = b"\x1f\x8b"


class FeatureFileEngine:
    """`CaptureEngine` that reads files instead of running a target."""

    def __init__(
        self, folders: tuple[str, ...], *, max_length: int, hidden_size: int, vocab_size: int, dtype: torch.dtype
    ) -> None:
        self._files = [feature_files(folder) for folder in folders]
        self._max_length = max_length
        self._hidden_size = hidden_size
        self._vocab_size = vocab_size
        self._dtype = dtype

    def fingerprint(self) -> Fingerprint:
        """The dtype that values are converted to; the host does not matter."""
        return fingerprint_of({"engine": "feature-files", "dtype": str(self._dtype).removeprefix("torch.")})

    def capture(self, tasks: Sequence[PromptTask], padded_length: int, advance: Advance) -> list[Outcome]:
        """See `CaptureEngine.capture`; the group's shape has no meaning here."""
        del padded_length
        outcomes = []
        for task in tasks:
            if task.capture:
                outcomes.append(self._one(task))
                advance()
        return outcomes

    def _one(self, task: PromptTask) -> Outcome:
        path = self._path(task)
        try:
            features = read_features(path, max_length=self._max_length)
            check_against_target(features, path, hidden_size=self._hidden_size, vocab_size=self._vocab_size)
        except Corrupt as error:
            return Outcome(task=task, problem=str(error))
        if len(features[INPUT_IDS]) != task.num_tokens:
            raise UserError(
                f"{path} has {len(features[INPUT_IDS])} tokens, but {task.num_tokens} when the job was prepared: it "
                "changed; restore it, or start a new job"
            )
        stored = {name: tensor.to(self._dtype) if name in (AUX, LAST) else tensor for name, tensor in features.items()}
        problem = content_problem(stored, hidden_size=self._hidden_size, dtype=self._dtype)
        return Outcome(task=task, features=None if problem else stored, problem=problem and f"{path}: {problem}")

    def _path(self, task: PromptTask) -> Path:
        if task.file_index >= len(self._files) or task.offset >= len(self._files[task.file_index]):
            raise UserError(f"feature file {task.offset} of folder {task.file_index} is gone: data.features changed")
        return self._files[task.file_index][task.offset]


def read_features(path: Path, *, max_length: int) -> Features:
    """One file as features under the stored names, cut to `max_length`, in the file's own float dtype.

    Raises `Corrupt` naming the file for anything that is not the layout, `Transient` for I/O, `UserError` if absent.
    """
    try:
        with path.open("rb") as file:
            plain = _decompressed(file, path) if file.read(2) == _GZIP else None
        raw = _load(plain if plain is not None else path, path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is gone: data.features changed") from error
    except OSError as error:
        raise Transient(f"cannot read {path}: {error.strerror or error}", retry_after_seconds=1.0) from error
    return _normal(raw, path, max_length)


def check_against_target(features: Features, path: Path, *, hidden_size: int, vocab_size: int) -> None:
    """Raise `Corrupt` unless widths and token ids fit the target."""
    widths = {AUX: AUX_LAYERS * hidden_size, LAST: hidden_size}
    for name, width in widths.items():
        if features[name].shape[-1] != width:
            raise Corrupt(f"{path}: {_AS_STORED[name]} is {features[name].shape[-1]} wide; the target needs {width}")
    ids = features[INPUT_IDS]
    if int(ids.min()) < 0 or int(ids.max()) >= vocab_size:
        raise Corrupt(f"{path}: a token id is outside 0..{vocab_size - 1}")


def _decompressed(file: BinaryIO, path: Path) -> io.BytesIO:
    file.seek(0)
    whole = io.BytesIO()
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            while piece := stream.read(PIECE_BYTES):
                if whole.tell() + len(piece) > FILE_BYTES_MAX:
                    raise Corrupt(f"{path} grows to more than {FILE_BYTES_MAX} bytes")
                whole.write(piece)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Corrupt(f"{path} is not a whole gzip file: {error}") from error
    whole.seek(0)
    return whole


def _load(source: Path | io.BytesIO, path: Path) -> dict[str, object]:
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Corrupt(
            f"{path} is not a whole torch file in the zip format: copy it again, or save it again with a newer torch"
        ) from error
    # torch stores records as they are; a compressed record is not from torch, and may be a bomb.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise Corrupt(f"{path} holds a compressed record, which torch never writes")
    if sum(entry.file_size for entry in entries) > FILE_BYTES_MAX:
        raise Corrupt(f"{path} has more than {FILE_BYTES_MAX} bytes")
    if isinstance(source, io.BytesIO):
        source.seek(0)
    try:
        raw = torch.load(source, map_location="cpu", weights_only=True, mmap=isinstance(source, Path))
    except UnpicklingError as error:
        # torch's own words advise to run the program; ours must not.
        asked = _FORBIDDEN.search(str(error))
        wants = f": it asks for {asked[1]}" if asked else ""
        raise Corrupt(f"{path} holds a pickled program instead of plain tensors{wants}; it was not run") from error
    except (RuntimeError, ValueError, KeyError, EOFError, TypeError, AttributeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise Corrupt(f"{path} cannot be read as plain tensors: {first}") from error
    if not isinstance(raw, dict):
        raise Corrupt(f"{path} holds a {type(raw).__name__}; expected a dictionary of tensors")
    return raw


def _normal(raw: dict[str, object], path: Path, max_length: int) -> Features:
    tensors: dict[str, Tensor] = {}
    for key in RAW_KEYS:
        value = raw.get(key)
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise Corrupt(f"{path} has no dense tensor {key}")
        tensors[key] = value
    length = tensors["input_ids"].numel()
    if not length:
        raise Corrupt(f"{path} holds no token")
    if tensors["input_ids"].is_floating_point() or tensors["input_ids"].is_complex():
        raise Corrupt(f"{path}: input_ids are not whole numbers")
    for key in ("hidden_state", "aux_hidden_state"):
        if not tensors[key].is_floating_point() or not tensors[key].dim() or not tensors[key].shape[-1]:
            raise Corrupt(f"{path}: {key} holds no floating point vectors")
    rows = {key: _rows(tensors[key], key, length, path) for key in RAW_KEYS}
    cut = {name: rows[key][:max_length] for name, key in _AS_STORED.items()}
    cut[INPUT_IDS] = cut[INPUT_IDS].to(torch.int64)
    cut[LOSS_MASK] = (cut[LOSS_MASK] != 0).to(torch.uint8)
    # The file may be mapped, and a mapped file may change under us: from here on the bytes are ours.
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in cut.items()}


def _rows(tensor: Tensor, key: str, length: int, path: Path) -> Tensor:
    vectors = key in ("hidden_state", "aux_hidden_state")
    shape = (length, tensor.shape[-1]) if vectors else (length,)
    if tensor.shape not in (torch.Size(shape), torch.Size((1, *shape))):
        raise Corrupt(f"{path}: {key} has shape {tuple(tensor.shape)}, but the file has {length} tokens")
    return tensor.reshape(shape)
