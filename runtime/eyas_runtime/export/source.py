"""The draft inside a checkpoint: found, compared with its digests, and read as whole tensors.

A source is a checkpoint directory or any folder above it (a finished run): then it is the newest committed one. What
says "committed" is the receipt beside the manifest, whose manifest digest must be that of the manifest's own bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from eyas_contract.errors import Corrupt, UserError
from eyas_runtime import digests, files
from eyas_runtime.checkpoint import manifest as manifests
from eyas_runtime.checkpoint import weights
from eyas_runtime.checkpoint.manifest import Manifest
from eyas_runtime.checkpoint.names import MANIFEST, RECEIPT, STRUCK, parse_directory
from eyas_runtime.checkpoint.reader import CheckpointReader
from eyas_runtime.train.draft_state import D2T
from eyas_runtime.train.eagle3.config import DraftConfig
from eyas_runtime.train.eagle3.vocab import VocabMap, check_vocab_map

TRAINER: Final = "eagle3"


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftSource:
    """A verified draft in memory."""

    config: DraftConfig
    tensors: Mapping[str, Tensor]
    """float32, whole, by the draft module's own names."""
    vocab: VocabMap
    manifest: Manifest
    directory: Path

    @property
    def step(self) -> int:
        """Optimizer steps in it."""
        return self.manifest.state.training_step or self.manifest.step


def open_source(path: Path, *, best: bool = False) -> DraftSource:
    """Read the draft in `path` (see the module), or the best one as of that checkpoint.

    Raises `UserError` when there is none, `Corrupt` for wrong bytes.
    """
    directory = find_best(path) if best else find_checkpoint(path)
    try:
        return _read(directory)
    except Corrupt as error:
        raise Corrupt(f"{directory} is damaged: {error}") from error
    except FileNotFoundError as error:
        missing = Path(str(error.filename or "a file")).name
        raise Corrupt(f"{directory} is damaged: {missing} is missing") from error


def _read(directory: Path) -> DraftSource:
    with CheckpointReader(directory, manifest_digest=_committed_digest(directory)) as reader:
        if reader.manifest.trainer != TRAINER:
            raise UserError(f"{directory} holds a {reader.manifest.trainer} state, not an EAGLE3 draft")
        config = _config(reader.manifest)
        names = [name for name in reader.layout.tensors if name.startswith(weights.WEIGHTS)]
        found = {name.removeprefix(weights.WEIGHTS): _tensor(reader, name) for name in names}
        vocab = _vocab(reader, config)
        # The digests prove the files; this proves that they are, together, what the ranks trained.
        if weights.of_checkpoint(reader) != reader.manifest.weights_sha256:
            raise Corrupt("the weights do not match the manifest's weights_sha256")
        return DraftSource(config=config, tensors=found, vocab=vocab, manifest=reader.manifest, directory=directory)


def find_checkpoint(path: Path) -> Path:
    """`path` itself if it is a checkpoint directory, else the newest committed one below it. Raises `UserError`."""
    if (path / MANIFEST).is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give a run, a folder of checkpoints, or one checkpoint directory")
    found = [candidate.parent for candidate in path.rglob(RECEIPT) if _is_candidate(candidate.parent)]
    if not found:
        raise UserError(f"{path} holds no committed checkpoint; has the run reached its first one?")
    return max(found, key=_age)


def find_best(path: Path) -> Path:
    """The best checkpoint as of the one that `find_checkpoint` finds. Raises `UserError` when nothing was evaluated."""
    newest = find_checkpoint(path)
    raw = files.read_verified(newest / MANIFEST, bytes_max=manifests.MANIFEST_BYTES_MAX)
    state = manifests.decode(raw).evaluation
    if state is None or state.best is None:
        raise UserError(f"{newest} knows no best checkpoint: its job has no spec.evaluation, or evaluated nothing yet")
    directory = newest.parent / state.best.directory
    if parse_directory(state.best.directory) is None or not (directory / MANIFEST).is_file():
        raise UserError(f"the best checkpoint {directory} is not there; leave --best out to take the newest one")
    return directory


def _is_candidate(directory: Path) -> bool:
    return (
        parse_directory(directory.name) is not None
        and (directory / MANIFEST).is_file()
        and not (directory / STRUCK).exists()
    )


def _age(directory: Path) -> tuple[int, int, str]:
    parsed = parse_directory(directory.name)
    try:
        raw = files.read_verified(directory / RECEIPT, bytes_max=manifests.RECEIPT_BYTES_MAX)
        receipt = manifests.decode_receipt(raw)
    except Corrupt as error:
        raise Corrupt(f"{directory} is damaged: {error}") from error
    return receipt.store_epoch, 0 if parsed is None else parsed.step, directory.name


def _committed_digest(directory: Path) -> str:
    raw = files.read_verified(directory / MANIFEST, bytes_max=manifests.MANIFEST_BYTES_MAX)
    found = manifests.digest_of(raw)
    try:
        stored = files.read_verified(directory / RECEIPT, bytes_max=manifests.RECEIPT_BYTES_MAX)
    except FileNotFoundError as error:
        raise UserError(f"{directory} has no receipt: it was never committed") from error
    digests.check(f"blake3:{found}", f"blake3:{manifests.decode_receipt(stored).manifest_digest}", MANIFEST)
    return found


def _config(manifest: Manifest) -> DraftConfig:
    known = {name: value for name, value in manifest.config.items() if name in DraftConfig.__dataclass_fields__}
    try:
        return DraftConfig(**known)  # type: ignore[arg-type]
    except TypeError as error:
        raise Corrupt(f"the manifest does not describe a draft: {error}") from error


def _tensor(reader: CheckpointReader, name: str) -> Tensor:
    stored = reader.tensor(name)
    if stored.dtype != "float32":
        raise Corrupt(f"{name} is stored as {stored.dtype}; master weights are float32")
    return torch.from_numpy(np.frombuffer(reader.read(name).tobytes(), dtype="<f4").reshape(stored.shape).copy())


def _vocab(reader: CheckpointReader, config: DraftConfig) -> VocabMap:
    d2t = np.frombuffer(reader.read(D2T).tobytes(), dtype="<i8").astype(np.int64)
    kept = d2t + np.arange(len(d2t), dtype=np.int64)
    if len(kept) != config.draft_vocab_size or kept.min() < 0 or kept.max() >= config.vocab_size:
        raise Corrupt("the checkpoint's vocabulary map does not fit its draft")
    t2d = np.zeros(config.vocab_size, dtype=np.bool_)
    t2d[kept] = True
    vocab = VocabMap(d2t=d2t, t2d=t2d)
    check_vocab_map(vocab, vocab_size=config.vocab_size, draft_vocab_size=config.draft_vocab_size)
    return vocab
