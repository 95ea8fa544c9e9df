"""Everything that is no pod: claims, configuration, and the records of what a cluster would do with policies.

One JSON file per object, so that a run which was killed anywhere finds what it had made. Services and policies have no
effect on a local machine (addresses are fixed, everything is one user's); they are kept so that both backends decide
from the same list of children.
"""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from eyas_contract.errors import Conflict, UserError
from eyas_operator.backends.local.folder import read_json, replace_json
from eyas_operator.names import LABEL_JOB_UID
from eyas_operator.world import Manifest, Metadata

CLAIM: Final = "PersistentVolumeClaim"
CONFIG_MAP: Final = "ConfigMap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One object as it was last written."""

    kind: str
    uid: str
    created: str
    manifest: Manifest

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def metadata(self) -> Metadata:
        """The part that decides."""
        return metadata_of(self.manifest, uid=self.uid, created=self.created)


def metadata_of(manifest: Manifest, *, uid: str, created: str, deleted: str = "") -> Metadata:
    """Typed metadata of an object of ours."""
    raw = manifest["metadata"] | {"uid": uid, "creationTimestamp": created}
    if deleted:
        raw["deletionTimestamp"] = deleted
    return msgspec.convert(raw, Metadata)


def new_uid() -> str:
    """A UID as Kubernetes gives them."""
    return str(uuid.uuid4())


def job_uid_of(manifest: Manifest) -> str:
    """UID of the job that an object belongs to, empty for a stranger's."""
    return str(manifest["metadata"].get("labels", {}).get(LABEL_JOB_UID, ""))


class Objects:
    """The objects of one run, as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Stored]:
        """Every object, by kind and name."""
        found = (self._read(path) for path in sorted(self._folder.glob("*.json")))
        return [stored for stored in found if stored is not None]

    def find(self, kind: str, name: str) -> Stored | None:
        """The object of that kind and name."""
        return self._read(self._path(kind, name))

    def create(self, manifest: Manifest, *, uid: str, now: str) -> Stored:
        """Create an object; one of that name that belongs to the same job is success, another's is a `Conflict`."""
        existing = self.find(manifest["kind"], manifest["metadata"]["name"])
        if existing is None:
            return self._write(manifest, uid=uid, created=now)
        if job_uid_of(existing.manifest) != job_uid_of(manifest):
            raise Conflict(f"{existing.kind} {existing.name} belongs to another job")
        return existing

    def apply(self, manifest: Manifest, *, now: str) -> Stored:
        """Make an object look like `manifest`, keeping its identity."""
        existing = self.find(manifest["kind"], manifest["metadata"]["name"])
        if existing is None:
            return self._write(manifest, uid=new_uid(), created=now)
        return self._write(manifest, uid=existing.uid, created=existing.created)

    def delete(self, stored: Stored) -> None:
        """Forget an object."""
        self._path(stored.kind, stored.name).unlink(missing_ok=True)

    def _write(self, manifest: Manifest, *, uid: str, created: str) -> Stored:
        stored = Stored(kind=manifest["kind"], uid=uid, created=created, manifest=manifest)
        record = {"uid": uid, "created": created, "manifest": manifest}
        replace_json(self._path(stored.kind, stored.name), record)
        return stored

    def _read(self, path: Path) -> Stored | None:
        record: Any = read_json(path)
        if not isinstance(record, dict):
            return None
        manifest = record["manifest"]
        return Stored(kind=manifest["kind"], uid=record["uid"], created=record["created"], manifest=manifest)

    def _path(self, kind: str, name: str) -> Path:
        if "/" in name or not kind.isalpha():
            raise UserError(f"{kind} {name[:80]!r} has no legal name")
        return self._folder / f"{kind}.{name}.json"
