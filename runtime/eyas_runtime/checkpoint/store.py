"""The folder of a job's checkpoints: its marker, its directories, and the only deletions in it.

The marker file says whose folder this is and that it is mounted. It is written once, before the first step; where it
cannot be read, nothing here is judged missing, and an empty mount never means "start at step 0".
"""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from eyas_contract import wire
from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Corrupt, UserError
from eyas_contract.ids import Incarnation, JobUid
from eyas_runtime import files
from eyas_runtime.checkpoint import manifest as manifests
from eyas_runtime.checkpoint.names import BEST, MANIFEST, RECEIPT, ROOT_MARKER, STRUCK, parse_directory

MARKER_BYTES_MAX = 4096
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a full volume: no fault of the ranks, and over as soon as somebody makes room."""


class Marker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of the root marker."""

    schema: int = 1
    job_uid: JobUid


class Strike(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why and by whom a directory was left behind."""

    incarnation: Incarnation
    went_back_to_step: int


@dataclass(frozen=True, slots=True)
class CheckpointRoot:
    """One job's folder at `path`. Every method raises `OSError` as it comes."""

    path: Path
    job_uid: JobUid

    def has_marker(self) -> bool:
        """Whether the folder is mounted and ours. Raises `UserError` when it is another job's."""
        try:
            raw = files.read_verified(self.path / ROOT_MARKER, bytes_max=MARKER_BYTES_MAX)
        except FileNotFoundError:
            return False
        try:
            marker = msgspec.json.decode(raw, type=Marker)
        except UNDECODABLE as error:
            raise Corrupt(f"{ROOT_MARKER} is damaged: {error}") from error
        if marker.job_uid != self.job_uid:
            raise UserError(
                f"the checkpoint folder belongs to job {marker.job_uid}, not to {self.job_uid}: give this job its own"
            )
        return True

    def write_marker(self) -> None:
        """Make the folder this job's. An existing marker is kept."""
        self.path.mkdir(parents=True, exist_ok=True)
        marker = msgspec.json.encode(Marker(job_uid=self.job_uid))
        try:
            files.publish_bytes(self.path / ROOT_MARKER, marker, replace=False)
        except FileExistsError:
            self.has_marker()

    def listed(self) -> tuple[str, ...]:
        """Names of all checkpoint directories, complete or not."""
        with os.scandir(self.path) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return tuple(sorted(name for name in names if parse_directory(name) is not None))

    def directory(self, name: str) -> Path:
        """Path of the checkpoint directory `name`. Raises `UserError` for a name that is not one."""
        if parse_directory(name) is None:
            raise UserError(f"{name[:80]!r} is not the name of a checkpoint directory")
        return self.path / name

    def create(self, name: str) -> Path:
        """The directory `name`, made (durably) if it is not there."""
        path = self.directory(name)
        path.mkdir(exist_ok=True)
        files.sync_directory(self.path)
        return path

    def receipt(self, name: str) -> manifests.Receipt | None:
        """The receipt stored in `name`, or None. Raises `Corrupt`."""
        try:
            raw = files.read_verified(self.directory(name) / RECEIPT, bytes_max=manifests.RECEIPT_BYTES_MAX)
        except FileNotFoundError:
            return None
        return manifests.decode_receipt(raw)

    def has_receipt(self, name: str) -> bool:
        """Whether anything lies under the name of a receipt; what cannot be asked raises and is no answer."""
        try:
            os.lstat(self.directory(name) / RECEIPT)
        except FileNotFoundError:
            return False
        return True

    def store_receipt(self, name: str, receipt: manifests.Receipt) -> None:
        """Store the service's word beside the manifest."""
        files.publish_bytes(self.directory(name) / RECEIPT, msgspec.json.encode(receipt))

    def best(self) -> wire.Best | None:
        """Which checkpoint is the best one, or None while nothing was evaluated. Raises `Corrupt`."""
        try:
            raw = files.read_verified(self.path / BEST, bytes_max=manifests.RECEIPT_BYTES_MAX)
        except FileNotFoundError:
            return None
        try:
            return msgspec.json.decode(raw, type=wire.Best)
        except UNDECODABLE as error:
            raise Corrupt(f"{BEST} is damaged: {error}") from error

    def store_best(self, best: wire.Best) -> None:
        """Say which checkpoint is the best one; nothing is written when the file says so already."""
        raw = msgspec.json.format(msgspec.json.encode(best), indent=1)
        try:
            if files.read_verified(self.path / BEST, bytes_max=manifests.RECEIPT_BYTES_MAX) == raw:
                return
        except (FileNotFoundError, Corrupt):
            pass
        files.publish_bytes(self.path / BEST, raw)

    def forget_best(self) -> None:
        """Say that nothing was evaluated yet."""
        if os.path.lexists(self.path / BEST):
            with files.directory(self.path) as dir_fd:
                files.remove_at(dir_fd, BEST)

    def manifest_bytes(self, name: str) -> bytearray | None:
        """The manifest of `name` as it is, or None. Raises `Corrupt` for something that is no file of sane length."""
        try:
            return files.read_verified(self.directory(name) / MANIFEST, bytes_max=manifests.MANIFEST_BYTES_MAX)
        except FileNotFoundError:
            return None

    def is_struck(self, name: str) -> bool:
        """Whether `name` was left behind by an earlier start."""
        return os.path.lexists(self.directory(name) / STRUCK)

    def strike(self, names: Iterable[str], strike: Strike) -> None:
        """Mark directories as another line of history, durably, so that none is believed even if it verifies later."""
        for name in names:
            path = self.directory(name)
            if path.is_dir() and not self.is_struck(name):
                files.publish_bytes(path / STRUCK, msgspec.json.encode(strike))

    def delete(self, names: Iterable[str]) -> None:
        """Delete directories that the service named as garbage, or never knew. Absent ones are no error."""
        for name in names:
            files.remove_tree(self.directory(name))
