"""One collective save: every rank writes its shard, rank 0 makes the checkpoint of them and has it committed.

The order is the promise: shard bytes and names durable on every rank, then their digests gathered, then layout, then
manifest, then both directories synced, and only then the commit, after which the receipt is stored and what the
service names as garbage is deleted. A failure anywhere before the commit leaves a directory that nobody believes, and
that the next start of the ranks removes.
What ranks exchange has a fixed size (length and digest); sizes and shapes are read from the files themselves, which
also proves that rank 0 sees what the others wrote.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from eyas_contract import wire
from eyas_contract.errors import Bug, Transient, UserError
from eyas_contract.ids import Incarnation
from eyas_runtime import digests, files
from eyas_runtime.checkpoint import layout as layouts
from eyas_runtime.checkpoint import manifest as manifests
from eyas_runtime.checkpoint import weights
from eyas_runtime.checkpoint.layout import Layout
from eyas_runtime.checkpoint.manifest import FileEntry, Manifest
from eyas_runtime.checkpoint.names import LAYOUT, MANIFEST, directory_name, shard_name
from eyas_runtime.checkpoint.pieces import Piece, Written, read_boxes, write_shard
from eyas_runtime.checkpoint.reader import SliceReader
from eyas_runtime.checkpoint.store import NO_ROOM, CheckpointRoot
from eyas_runtime.failpoints import hit

_LENGTH_BYTES: Final = 8
_DIGEST_BYTES: Final = 32
_DONE: Final = b"\x01"


class Gather(Protocol):
    """What a save needs of the gang; its own channel, so that training collectives never meet it."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    def all_gather(self, data: bytes) -> list[bytes]:
        """`data` of every rank, in rank order; all of one length."""
        ...


class Committer(Protocol):
    """The service's half, used by rank 0 alone."""

    def commit_checkpoint(self, request: wire.CheckpointCommitRequest) -> wire.CheckpointCommitReply:
        """The single commit point. Waits for the service; raises `Closed` or `Fenced`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Whose checkpoints these are; constant for one incarnation."""

    attempt: int
    incarnation: Incarnation
    store_epoch: int
    trainer: str
    config: dict[str, int | float | str | bool]
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """One checkpoint to be written: the state at a step boundary, already copied out of the model."""

    step: int
    pieces: Sequence[Piece]
    state: wire.CheckpointState
    verdicts: tuple[wire.Verdict, ...]
    """Since the parent checkpoint; the same on all ranks."""
    evaluation: wire.EvaluationState | None = None
    """As of the step; the same on all ranks. None: the job holds nothing out."""


class CheckpointWriter:
    """Writes checkpoints of one incarnation; `save` is called by all ranks in the same order."""

    def __init__(
        self,
        root: CheckpointRoot,
        lineage: Lineage,
        group: Gather,
        committer: Committer | None,
        *,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """`committer` is None on every rank but 0; `tick` says that work moves."""
        self._root, self._lineage, self._group, self._committer, self._tick = root, lineage, group, committer, tick

    def directory_at(self, step: int) -> str:
        """Name of the directory of a save of `step`."""
        return directory_name(step=step, attempt=self._lineage.attempt, incarnation=self._lineage.incarnation)

    def save(self, save: Save) -> None:
        """Write, commit, and return when the service has recorded the checkpoint, on every rank.

        Raises `Transient` when the volume is full, `OSError`, `Closed`, `Fenced`. After an exception the gang must
        start again.
        """
        try:
            self._save(save)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._withdraw(self.directory_at(save.step))
            # Not a crash: nothing is wrong with the ranks, and nobody may count this against them.
            raise Transient(
                f"no room for a checkpoint in {self._root.path}: {error.strerror}; make room there, and the job goes on"
            ) from error

    def _withdraw(self, name: str) -> None:
        """Take this rank's shard back, so that a save that found no room keeps none; not from beside a manifest."""
        with suppress(OSError), files.directory(self._root.directory(name)) as dir_fd:
            # With a manifest it may have been committed. On a rank other than 0 there is none before all shards are.
            if MANIFEST not in os.listdir(dir_fd):
                files.remove_at(dir_fd, shard_name(self._group.rank, self._group.world_size))

    def _save(self, save: Save) -> None:
        name = self.directory_at(save.step)
        path = self._root.create(name)
        hit("ckpt.before_data")
        shard = shard_name(self._group.rank, self._group.world_size)
        with files.directory(path) as dir_fd:
            written = write_shard(dir_fd, shard, save.pieces, tick=self._tick)
        hit("ckpt.after_data")
        shards = [_unpack(part) for part in self._group.all_gather(_pack(written))]
        garbage: tuple[str, ...] = ()
        if self._group.rank == 0:
            manifest = self._compose(save, name, path, shards)
            garbage = self._commit(save, manifest, path)
        self._group.all_gather(_DONE)
        self._delete(garbage)

    def _delete(self, garbage: Sequence[str]) -> None:
        try:
            self._root.delete(garbage)
        except OSError as error:
            # The checkpoint stands. A directory that NFS holds on to is named again by a later reconcile.
            sys.stderr.write(f"a superseded checkpoint cannot be deleted now: {error}\n")

    def _compose(self, save: Save, name: str, path: Path, shards: Sequence[Written]) -> Manifest:
        world = self._group.world_size
        names = [shard_name(rank, world) for rank in range(world)]
        layout = self._layout(path, names, shards)
        raw = layouts.encode(layout)
        files.publish_bytes(path / LAYOUT, raw)
        with SliceReader(path, layout, tick=self._tick) as reader:
            weights_sha256 = weights.of_checkpoint(reader, tick=self._tick)
        entries = {
            shard: FileEntry(written.digest, written.nbytes) for shard, written in zip(names, shards, strict=True)
        }
        entries[LAYOUT] = FileEntry(digests.digest_of([raw]), len(raw))
        lineage = self._lineage
        return Manifest(
            job_uid=self._root.job_uid,
            directory=name,
            step=save.step,
            store_epoch=lineage.store_epoch,
            attempt=lineage.attempt,
            incarnation=lineage.incarnation,
            world_size=world,
            trainer=lineage.trainer,
            config=lineage.config,
            files=entries,
            weights_sha256=weights_sha256,
            state=save.state,
            verdicts=save.verdicts,
            fingerprint=lineage.fingerprint,
            evaluation=save.evaluation,
        )

    def _layout(self, path: Path, names: Sequence[str], shards: Sequence[Written]) -> Layout:
        with files.directory(path) as dir_fd:
            try:
                boxes = {name: read_boxes(dir_fd, name) for name in names}
            except FileNotFoundError as error:
                raise UserError(
                    "rank 0 does not see another rank's checkpoint shard: volumes.checkpoints must be one volume that "
                    "all consumers mount (ReadWriteMany)"
                ) from error
        for name, written in zip(names, shards, strict=True):
            if (path / name).stat().st_size != written.nbytes:
                raise Bug(f"{name} has another length than its rank wrote")
        return layouts.build(len(names), boxes)

    def _commit(self, save: Save, manifest: Manifest, path: Path) -> tuple[str, ...]:
        if self._committer is None:
            raise Bug("rank 0 has no committer")
        raw = manifests.encode(manifest)
        files.publish_bytes(path / MANIFEST, raw, replace=False)
        hit("ckpt.after_manifest")
        files.sync_directory(path)
        files.sync_directory(self._root.path)
        hit("ckpt.after_dirsync")
        digest = manifests.digest_of(raw)
        hit("ckpt.before_commit")
        reply = self._committer.commit_checkpoint(
            wire.CheckpointCommitRequest(
                incarnation=manifest.incarnation,
                attempt=manifest.attempt,
                store_epoch=manifest.store_epoch,
                step=manifest.step,
                directory=manifest.directory,
                manifest_digest=digest,
                verdicts=save.verdicts,
                weights_sha256=manifest.weights_sha256,
                world_size=manifest.world_size,
                nbytes=manifest.nbytes() + len(raw),
                best=None if save.evaluation is None else save.evaluation.best,
            )
        )
        hit("ckpt.after_commit")
        self._root.store_receipt(
            manifest.directory,
            manifests.Receipt(
                receipt=reply.receipt, manifest_digest=digest, store_epoch=manifest.store_epoch, step=manifest.step
            ),
        )
        hit("ckpt.after_receipt")
        if save.evaluation is not None and save.evaluation.best is not None:
            self._root.store_best(save.evaluation.best)
        return tuple(name for name in reply.garbage if name != manifest.directory)


def _pack(written: Written) -> bytes:
    return written.nbytes.to_bytes(_LENGTH_BYTES, "little") + bytes.fromhex(written.digest.partition(":")[2])


def _unpack(raw: bytes) -> Written:
    if len(raw) != _LENGTH_BYTES + _DIGEST_BYTES:
        raise Bug(f"a rank's shard record has {len(raw)} bytes")
    return Written(nbytes=int.from_bytes(raw[:_LENGTH_BYTES], "little"), digest=f"blake3:{raw[_LENGTH_BYTES:].hex()}")
