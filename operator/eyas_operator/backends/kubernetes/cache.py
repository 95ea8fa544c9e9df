"""What the watches told last: children by job, and the jobs themselves. No I/O, no decisions; it may always be old.

Rules. Events arrive in order for one object, but lists cross them: of two sightings the one with the higher resource
version counts, and nothing that went comes back by a sighting from before. Nothing is known of a namespace before it
was listed once. A sighting is wrong at worst until the next list; who acts looks afresh first.
"""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from eyas_operator import names
from eyas_operator.backends.kubernetes.child import child_of
from eyas_operator.backends.kubernetes.listing import Kind, Listing, job_record
from eyas_operator.backends.kubernetes.resources import ALL_NAMESPACES, CLAIMS, OTHERS, PODS
from eyas_operator.names import JobIdentity
from eyas_operator.world import Child, Children, Claim, JobRecord, Manifest, Pod

Key = tuple[str, str, str]
"""(kind, namespace, name)."""
JobKey = tuple[str, str]
"""(namespace, name)."""
Seen = Pod | Claim | Child
EventType = Literal["ADDED", "MODIFIED", "DELETED"] | None
"""As a watch says it; None: an object that was there when the watch began."""
_OTHER_KINDS: Final = frozenset(resource.kind for resource in OTHERS)
GRAVES_MAX: Final = 20_000
"""Deletions that are remembered; a list that is older than so many of them does not exist."""


def version(text: str) -> int:
    """A resource version as a number; -1 for one that is none, which is then older than everything."""
    return int(text) if text.isascii() and text.isdigit() else -1


class ChildrenCache:
    """Children of all jobs in the watched namespaces."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[Key, Seen]] = {}
        """By the UID in the label."""
        self._owner: dict[Key, str] = {}
        """Under which UID each object is filed."""
        self._graves: dict[str, int] = {}
        """UIDs of objects that are gone and the version in which they went, the oldest first: no older sighting brings
        one back. A newer one does: what lost our label is gone for a watch, and is there again once it has it back."""
        self._listed: set[str] = set()

    def observe(self, event_type: EventType, raw: Manifest) -> None:
        """One watch event with the whole object. Kinds that are no children are ignored."""
        seen = _seen(raw)
        if seen is None:
            return
        if event_type == "DELETED":
            self._bury(_key(seen), seen.metadata.uid, version(seen.metadata.resource_version))
        else:
            self._put(seen)

    def replace(self, namespace: str, listing: Listing) -> None:
        """A list of all children in `namespace` (`*`: everywhere) takes the place of what was known, but for newer."""
        self._merge(listing, [key for key in self._owner if namespace in (ALL_NAMESPACES, key[1])])
        self._listed.add(namespace)

    def replace_job(self, job: JobIdentity, listing: Listing) -> None:
        """A list of one job's children; its namespace need not be known."""
        self._merge(listing, list(self._jobs.get(job.uid, ())))

    def children(self, job: JobIdentity) -> Children | None:
        """What the job has, as last seen; None: its namespace was never listed."""
        if not self._listed & {job.namespace, ALL_NAMESPACES}:
            return None
        mine = self._jobs.get(job.uid, {})
        kept = [mine[key] for key in sorted(mine) if key[1] == job.namespace]
        return Children(
            pods=tuple(seen for seen in kept if isinstance(seen, Pod)),
            claims=tuple(seen for seen in kept if isinstance(seen, Claim)),
            others=tuple(seen for seen in kept if isinstance(seen, Child)),
        )

    def versions(self) -> dict[str, int]:
        """Version of every object that is known, by UID."""
        seen = (thing.metadata for things in self._jobs.values() for thing in things.values())
        return {meta.uid: version(meta.resource_version) for meta in seen}

    def forget(self, namespace: str) -> None:
        """The watches of `namespace` broke off: it has to be listed before it is known again."""
        self._listed.discard(namespace)

    def _merge(self, listing: Listing, concerned: list[Key]) -> None:
        found = {seen.metadata.uid: seen for seen in all_items(listing)}
        versions = {kind: version(entry.resource_version) for kind, entry in _by_kind(listing).items()}
        for key in concerned:
            known = self._jobs[self._owner[key]][key].metadata
            if known.uid not in found and version(known.resource_version) <= versions[key[0]]:
                self._bury(key, known.uid, versions[key[0]])
        for seen in found.values():
            self._put(seen)

    def _put(self, seen: Seen) -> None:
        meta, key = seen.metadata, _key(seen)
        uid = meta.labels.get(names.LABEL_JOB_UID, "")
        known = self._jobs[self._owner[key]][key].metadata if key in self._owner else None
        present = version(meta.resource_version)
        if meta.uid in self._graves and present <= self._graves[meta.uid]:
            return
        if known is not None and version(known.resource_version) > present:
            return
        self._graves.pop(meta.uid, None)
        self._drop(key)
        if uid:
            self._jobs.setdefault(uid, {})[key] = seen
            self._owner[key] = uid

    def _bury(self, key: Key, uid: str, gone: int) -> None:
        self._graves[uid] = max(gone, self._graves.pop(uid, gone))
        while len(self._graves) > GRAVES_MAX:
            del self._graves[next(iter(self._graves))]
        known = self._jobs[self._owner[key]][key].metadata if key in self._owner else None
        if known is not None and known.uid == uid and version(known.resource_version) <= gone:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        uid = self._owner.pop(key, None)
        if uid is not None:
            del self._jobs[uid][key]
            if not self._jobs[uid]:
                del self._jobs[uid]


class JobsCache:
    """The jobs in the watched namespaces."""

    def __init__(self) -> None:
        self._records: dict[JobKey, JobRecord] = {}

    def observe(self, event_type: EventType, raw: Manifest) -> None:
        """One watch event of a job."""
        record = job_record(raw)
        if event_type == "DELETED":
            self.remove(record.identity)
        else:
            self.put(record)

    def put(self, record: JobRecord) -> None:
        """A record that was read or written just now; an older one than is known changes nothing."""
        key = (record.identity.namespace, record.identity.name)
        known = self._records.get(key)
        if known is None or version(known.resource_version) <= version(record.resource_version):
            self._records[key] = record

    def remove(self, job: JobIdentity) -> None:
        """That job is gone; one of the same name with another UID stays."""
        key = (job.namespace, job.name)
        known = self._records.get(key)
        if known is not None and known.identity.uid == job.uid:
            del self._records[key]

    def replace(self, namespace: str, found: Kind[JobRecord]) -> None:
        """A list of all jobs of `namespace` (`*`: everywhere)."""
        listed = version(found.resource_version)
        for key, known in list(self._records.items()):
            if namespace in (ALL_NAMESPACES, key[0]) and version(known.resource_version) <= listed:
                del self._records[key]
        for record in found.items:
            self.put(record)

    def job(self, namespace: str, name: str) -> JobRecord | None:
        """As last seen; None: unknown, which says nothing about whether there is one."""
        return self._records.get((namespace, name))

    def versions(self) -> dict[str, int]:
        """Version of every job that is known, by UID."""
        return {record.identity.uid: version(record.resource_version) for record in self._records.values()}

    def keys(self) -> frozenset[JobKey]:
        """All jobs that are known."""
        return frozenset(self._records)


def _seen(raw: Manifest) -> Seen | None:
    kind = raw.get("kind", "")
    if kind == PODS.kind:
        return msgspec.convert(raw, Pod)
    if kind == CLAIMS.kind:
        return msgspec.convert(raw, Claim)
    if kind in _OTHER_KINDS:
        return child_of(kind, msgspec.json.encode(raw["metadata"]))
    return None


def _key(seen: Seen) -> Key:
    kind = seen.kind if isinstance(seen, Child) else PODS.kind if isinstance(seen, Pod) else CLAIMS.kind
    return kind, seen.metadata.namespace, seen.metadata.name


def _by_kind(listing: Listing) -> dict[str, Kind[Pod] | Kind[Claim] | Kind[Child]]:
    return {PODS.kind: listing.pods, CLAIMS.kind: listing.claims, **listing.others}


def all_items(listing: Listing) -> Iterable[Seen]:
    """Every object of a listing."""
    for found in _by_kind(listing).values():
        yield from found.items
