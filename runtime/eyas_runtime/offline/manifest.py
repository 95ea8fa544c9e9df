"""The manifest of a set of feature files: names, lengths, digests, token counts, as JSON.

It lies above the files that it names, so that both can be copied together, and may stand in `data.features` in place of
a folder: then exactly its files are ingested, in its order, and each is compared with its digest first. What is read
is hostile: names that lead out of the folder, unknown fields and duplicates are refused.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import blake3
import msgspec

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Corrupt, Transient, UserError
from eyas_contract.no_tensors import assert_no_tensors
from eyas_runtime import files

SCHEMA: Final = 1
SUFFIX: Final = ".json"
MANIFEST_BYTES_MAX: Final = 1 << 30
"""Five million files."""


class FeatureFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file."""

    name: str
    """Below the manifest's folder, with forward slashes."""
    nbytes: int
    digest: str
    """`blake3:<hex>` of the whole file as it lies there."""
    num_tokens: int
    num_supervised: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All files, in the order in which they are ingested."""

    schema: int = SCHEMA
    hidden_size: int
    max_length: int
    """Cut that the counts were made with."""
    files: tuple[FeatureFile, ...]


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Make `manifest` the durable content of `path`. Raises `TypeError` for a tensor, `UserError` for a wrong name."""
    assert_no_tensors(manifest)
    _check(manifest, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.publish_bytes(path, msgspec.json.format(msgspec.json.encode(manifest), indent=1))


def read_manifest(path: Path) -> Manifest:
    """The manifest in `path`. Raises `UserError` naming what is wrong with it, `Transient` for I/O."""
    try:
        raw = files.read_verified(path, bytes_max=MANIFEST_BYTES_MAX)
        manifest = msgspec.json.decode(raw, type=Manifest)
    except FileNotFoundError as error:
        raise UserError(f"the feature manifest {path} is not there") from error
    except OSError as error:
        raise Transient(f"cannot read {path}: {error.strerror}", retry_after_seconds=1.0) from error
    except (*UNDECODABLE, Corrupt) as error:
        raise UserError(f"{path} is not a feature manifest: {error}") from error
    _check(manifest, path)
    return manifest


def paths_of(path: Path, manifest: Manifest) -> list[Path]:
    """Where the files of the manifest at `path` are. Raises `UserError` for one that is absent or of another size."""
    found = []
    for entry in manifest.files:
        file = path.parent / entry.name
        if not file.is_file():
            raise UserError(f"{path} names {entry.name}, which is not beside it; copy the files with their manifest")
        size = file.stat().st_size
        if size != entry.nbytes:
            raise UserError(f"{file} has {size} bytes, its manifest says {entry.nbytes}; copy it again")
        found.append(file)
    return found


def check_file(path: Path, entry: FeatureFile) -> None:
    """Raise `Corrupt` unless the file at `path` has the bytes that `entry` names."""
    if digest_of(path) != entry.digest:
        raise Corrupt(f"{path} does not match its digest in the manifest; copy it again")


def digest_of(path: Path) -> str:
    """`blake3:<hex>` of a whole file."""
    return f"blake3:{blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap(path).hexdigest()}"


def name_below(path: Path, manifest: Path) -> str:
    """The name that `manifest` gives to the file at `path`. Raises `UserError` when it lies elsewhere."""
    try:
        return path.resolve().relative_to(manifest.parent.resolve()).as_posix()
    except ValueError as error:
        raise UserError(
            f"{path} is not below {manifest.parent}: put the manifest above the files, so that they travel together"
        ) from error


def _check(manifest: Manifest, path: Path) -> None:
    if manifest.schema != SCHEMA:
        raise UserError(f"{path} has schema {manifest.schema}; this version reads {SCHEMA}")
    if not manifest.files:
        raise UserError(f"{path} names no file")
    _check_names([entry.name for entry in manifest.files], path)


def _check_names(names: Sequence[str], path: Path) -> None:
    for name in names:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\0" in name or pure.as_posix() != name or name == ".":
            raise UserError(f"{path} names {name[:80]!r}, which is not a plain path below its folder")
    if len(set(names)) != len(names):
        raise UserError(f"{path} names a file twice")
