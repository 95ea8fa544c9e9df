"""Reads and checks feature files, and lists them: what `eyas ingest` does before a job is made of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from eyas_contract.errors import UserError
from eyas_runtime.capture.engine import AUX, INPUT_IDS, LAST, LOSS_MASK
from eyas_runtime.capture.feature_files import read_features
from eyas_runtime.inputs import feature_files
from eyas_runtime.offline.manifest import FeatureFile, Manifest, digest_of, name_below, write_manifest
from eyas_runtime.train.eagle3.config import AUX_LAYERS


def ingest(
    folders: Sequence[Path], manifest: Path, *, max_length: int, told: Callable[[Path], None] = lambda path: None
) -> Manifest:
    """Check every feature file below `folders` and write `manifest`, which must lie above them.

    Raises `Corrupt` naming a file that is not the layout, `UserError` for files of different targets.
    """
    if max_length < 2:
        raise UserError(f"a sample needs at least 2 tokens, not {max_length}")
    entries: list[FeatureFile] = []
    widths: dict[int, Path] = {}
    for folder in folders:
        for path in feature_files(str(folder)):
            entry, width = _entry(path, manifest, max_length)
            entries.append(entry)
            widths.setdefault(width, path)
            if len(widths) > 1:
                raise UserError(f"{' and '.join(map(str, widths.values()))} come from targets of different width")
            told(path)
    made = Manifest(hidden_size=next(iter(widths)), max_length=max_length, files=tuple(entries))
    write_manifest(manifest, made)
    return made


def _entry(path: Path, manifest: Path, max_length: int) -> tuple[FeatureFile, int]:
    name = name_below(path, manifest)
    features = read_features(path, max_length=max_length)
    width = int(features[LAST].shape[-1])
    if features[AUX].shape[-1] != AUX_LAYERS * width:
        raise UserError(f"{path}: aux_hidden_state is {features[AUX].shape[-1]} wide, expected {AUX_LAYERS * width}")
    if not all(bool(torch.isfinite(features[key]).all()) for key in (AUX, LAST)):
        raise UserError(f"{path} holds a value that is not finite; take the file away")
    entry = FeatureFile(
        name=name,
        nbytes=path.stat().st_size,
        digest=digest_of(path),
        num_tokens=len(features[INPUT_IDS]),
        num_supervised=int(features[LOSS_MASK][:-1].sum()),
    )
    return entry, width
