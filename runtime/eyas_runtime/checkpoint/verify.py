"""Which checkpoint is believed at a start of the ranks.

A directory is a candidate when it holds a receipt, or a manifest whose digest the service knows, and no strike. The
newest one (by store epoch, then step) whose every file matches its digest is presented. A candidate is refused, with
a sentence, only for a digest that does not match or a file that is missing while the root marker can be read. An I/O
error is neither: it is repeated for a while, then it ends the process with 75, and nothing was judged.
"""

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from eyas_contract import wire
from eyas_contract.errors import Corrupt, Transient
from eyas_runtime import digests, files
from eyas_runtime.checkpoint import manifest as manifests
from eyas_runtime.checkpoint.manifest import Manifest
from eyas_runtime.checkpoint.names import MANIFEST, parse_directory
from eyas_runtime.checkpoint.store import NO_ROOM, CheckpointRoot

RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Pauses between tries of a failing file system: half a minute in all, past a fail-over of most NFS servers."""
READ_BYTES: Final = 8 << 20
HASH_THREADS: Final = min(8, os.cpu_count() or 1)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A checkpoint all of whose files match their digests."""

    manifest: Manifest
    manifest_digest: str
    receipt: str
    """Empty when it was never stored."""

    def presented(self) -> wire.PresentedCheckpoint:
        """As rank 0 shows it to the service."""
        return manifests.presented(self.manifest, self.manifest_digest, self.receipt)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A candidate that is not believed, and why, in words."""

    directory: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a start finds."""

    checkpoint: Verified | None
    refused: tuple[Refusal, ...]
    """Candidates that failed, newest first."""
    listed: tuple[str, ...]
    """All checkpoint directories that are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    name: str
    store_epoch: int
    step: int
    expected_digest: str
    receipt: str


def find_newest(
    root: CheckpointRoot,
    known: Sequence[wire.KnownCheckpoint],
    *,
    not_accepted: frozenset[str] = frozenset(),
    tick: Callable[[], None] = lambda: None,
    pause: Callable[[float], None] = time.sleep,
) -> Found:
    """Verify candidates from the newest down until one holds.

    `not_accepted` are directories that the service refused to go back to. Raises `Transient` when the folder cannot be
    read, or is empty although the service knows checkpoints.
    """
    return retrying(lambda: _find(root, known, not_accepted, tick), pause=pause)


def retrying(call: Callable[[], T], *, pause: Callable[[float], None] = time.sleep) -> T:
    """`call()`, repeated while it raises `OSError` or `Transient`. Raises `Transient` when the tries are spent."""
    for seconds in RETRY_SECONDS:
        try:
            return call()
        except (OSError, Transient):
            pause(seconds)
    try:
        return call()
    except OSError as error:
        if error.errno in NO_ROOM:
            raise Transient(
                f"no room in the checkpoint folder: {error}; make room there, and the job goes on"
            ) from error
        raise Transient(f"the checkpoint folder cannot be read: {error}") from error


def _find(
    root: CheckpointRoot,
    known: Sequence[wire.KnownCheckpoint],
    not_accepted: frozenset[str],
    tick: Callable[[], None],
) -> Found:
    listed = root.listed()
    if not root.has_marker():
        raise Transient(f"{root.path} has no marker file: the checkpoint volume is not mounted, or not this job's")
    refused: list[Refusal] = []
    for candidate in _candidates(root, listed, known):
        if candidate.name in not_accepted:
            refused.append(Refusal(candidate.name, "the metadata service does not accept it"))
            continue
        try:
            verified = _verify(root, candidate, tick)
        except (Corrupt, FileNotFoundError, NotADirectoryError) as error:
            # A name that is gone proves something only while the mount is there: ask the marker again, afterwards.
            if not root.has_marker():
                raise Transient(f"{root.path} lost its marker file while it was read") from error
            refused.append(Refusal(candidate.name, _sentence(error)))
            continue
        return Found(checkpoint=verified, refused=tuple(refused), listed=listed)
    return Found(checkpoint=None, refused=tuple(refused), listed=listed)


def _sentence(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{Path(str(error.filename or 'a file')).name} is missing"
    return str(error)


def _candidates(root: CheckpointRoot, listed: Sequence[str], known: Sequence[wire.KnownCheckpoint]) -> list[_Candidate]:
    by_name = {entry.directory: entry for entry in known}
    found = [_candidate(root, name, by_name.get(name)) for name in {*listed, *by_name}]
    return sorted(
        (candidate for candidate in found if candidate is not None),
        key=lambda candidate: (candidate.store_epoch, candidate.step, candidate.name),
        reverse=True,
    )


def _candidate(root: CheckpointRoot, name: str, known: wire.KnownCheckpoint | None) -> _Candidate | None:
    if root.is_struck(name):
        return None
    if known is not None:
        return _Candidate(
            name=name,
            store_epoch=known.store_epoch,
            step=known.step,
            expected_digest=known.manifest_digest,
            receipt=known.receipt,
        )
    parsed = parse_directory(name)
    try:
        receipt = root.receipt(name)
    except Corrupt:
        receipt = None
    if receipt is None or parsed is None:
        return None
    return _Candidate(
        name=name,
        store_epoch=receipt.store_epoch,
        step=parsed.step,
        expected_digest=receipt.manifest_digest,
        receipt=receipt.receipt,
    )


def _verify(root: CheckpointRoot, candidate: _Candidate, tick: Callable[[], None]) -> Verified:
    raw = root.manifest_bytes(candidate.name)
    if raw is None:
        raise FileNotFoundError(errno.ENOENT, "no manifest", MANIFEST)
    found = manifests.digest_of(raw)
    digests.check(f"blake3:{found}", f"blake3:{candidate.expected_digest}", MANIFEST)
    manifest = manifests.decode(raw)
    if manifest.directory != candidate.name or manifest.job_uid != root.job_uid:
        raise Corrupt("its manifest is that of another directory or job")
    with files.directory(root.directory(candidate.name)) as dir_fd:
        for name, entry in sorted(manifest.files.items()):
            check_file(dir_fd, name, entry, tick)
    # What a directory's own receipt says is compared by the service, which alone holds the key.
    return Verified(manifest=manifest, manifest_digest=found, receipt=_stored_receipt(root, candidate.name, found))


def _stored_receipt(root: CheckpointRoot, name: str, manifest_digest: str) -> str:
    try:
        receipt = root.receipt(name)
    except Corrupt:
        return ""
    return receipt.receipt if receipt is not None and receipt.manifest_digest == manifest_digest else ""


def check_file(dir_fd: int, name: str, entry: manifests.FileEntry, tick: Callable[[], None] = lambda: None) -> None:
    """Compare length and digest of one file. Raises `Corrupt`, `FileNotFoundError`, or another `OSError`."""
    try:
        descriptor = files.open_regular(dir_fd, name)
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, name) from error
    try:
        size = os.fstat(descriptor).st_size
        if size != entry.nbytes:
            raise Corrupt(f"{name} has {size} bytes, its manifest says {entry.nbytes}")
        state = digests.hasher("blake3", threads=HASH_THREADS)
        buffer = memoryview(bytearray(min(READ_BYTES, max(1, size))))
        while size:
            part = buffer[: min(len(buffer), size)]
            files.read_into(descriptor, part, name)
            state.update(part)
            size -= len(part)
            tick()
    finally:
        os.close(descriptor)
    digests.check(f"blake3:{state.hexdigest()}", entry.digest, name)
