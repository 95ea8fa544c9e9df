"""The manifest: what a checkpoint is, in one file whose digest the metadata service commits.

It names every other file with its digest and length, carries the service's state as of the step (so that a lost
metadata volume can be rebuilt from it), and the verdicts since its parent. Its own digest is BLAKE3 over its bytes.
"""

from typing import Final

import blake3
import msgspec

from eyas_contract import wire
from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Corrupt
from eyas_contract.ids import Incarnation, JobUid

MANIFEST_BYTES_MAX: Final = 64 << 20
RECEIPT_BYTES_MAX: Final = 64 << 10
SCHEMA: Final = 1


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Digest (`blake3:<hex>`) and length of one file of the directory."""

    digest: str
    nbytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that makes the directory a checkpoint."""

    schema: int = SCHEMA
    job_uid: JobUid
    directory: str
    step: int
    store_epoch: int
    attempt: int
    incarnation: Incarnation
    world_size: int
    trainer: str
    """What kind of state the shards hold: `eagle3`, or `fake` in crash tests."""
    config: dict[str, int | float | str | bool]
    """What a reader needs to build the model before it reads a tensor."""
    files: dict[str, FileEntry]
    weights_sha256: str
    state: wire.CheckpointState
    verdicts: tuple[wire.Verdict, ...]
    """Zero-weight verdicts of windows since the parent checkpoint."""
    fingerprint: str = ""
    """Digest of the training fingerprint (device, libraries, threads, world size)."""
    evaluation: wire.EvaluationState | None = None
    """What the ranks knew of evaluations at this step."""

    def nbytes(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(entry.nbytes for entry in self.files.values())


class Receipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The service's word, stored beside the manifest."""

    receipt: str
    manifest_digest: str
    store_epoch: int
    step: int


def encode(manifest: Manifest) -> bytes:
    """Deterministic JSON bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)


def digest_of(raw: bytes | bytearray) -> str:
    """BLAKE3 hex of a manifest's bytes."""
    return blake3.blake3(raw).hexdigest()


def decode(raw: bytes | bytearray) -> Manifest:
    """Raises `Corrupt` for anything that is not a manifest of this version."""
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except UNDECODABLE as error:
        raise Corrupt(f"manifest.json is not a manifest: {error}") from error
    if manifest.schema != SCHEMA:
        raise Corrupt(f"manifest.json has schema {manifest.schema}; this version reads {SCHEMA}")
    if manifest.state.step != manifest.step or manifest.state.job_uid != manifest.job_uid:
        raise Corrupt("manifest.json carries the state of another step or job")
    return manifest


def decode_receipt(raw: bytes | bytearray) -> Receipt:
    """Raises `Corrupt`."""
    try:
        return msgspec.json.decode(raw, type=Receipt)
    except UNDECODABLE as error:
        raise Corrupt(f"receipt.json is not a receipt: {error}") from error


def presented(manifest: Manifest, manifest_digest: str, receipt: str) -> wire.PresentedCheckpoint:
    """What rank 0 shows to the service. The verdicts since the parent join the dead letters of its state."""
    known = {letter.sequence for letter in manifest.state.dead_letters}
    added = tuple(
        wire.DeadLetter(sequence=verdict.sequence, step=verdict.step, reason=verdict.reason, source="rank")
        for verdict in manifest.verdicts
        if verdict.sequence not in known
    )
    letters = tuple(sorted((*manifest.state.dead_letters, *added), key=lambda letter: letter.sequence))
    return wire.PresentedCheckpoint(
        directory=manifest.directory,
        step=manifest.step,
        store_epoch=manifest.store_epoch,
        attempt=manifest.attempt,
        incarnation=manifest.incarnation,
        manifest_digest=manifest_digest,
        receipt=receipt,
        state=msgspec.structs.replace(manifest.state, dead_letters=letters),
        evaluation=manifest.evaluation,
    )
