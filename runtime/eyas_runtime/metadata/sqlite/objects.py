"""Theme "objects" of the SQLite store: blobs in the pool, what may be deleted, what went missing."""

from collections.abc import Sequence

from eyas_contract import wire
from eyas_contract.ids import ObjectKey, generation_of
from eyas_contract.words import counted
from eyas_runtime.metadata.port import StoredObject, Usage
from eyas_runtime.metadata.sqlite.base import SQLiteBase
from eyas_runtime.metadata.sqlite.database import Row


class Objects(SQLiteBase):
    """Object rows. A sample's state is truth; an object's follows from the samples that refer to it."""

    def usage(self) -> Usage:
        totals = {row[0]: (row[1], row[2]) for row in self._db.all("object_totals")}
        leases = self._db.one("lease_usage") or (0, 0)
        gang, durable = self._newest_gang(), self._progress().durable_step
        low = self._schedule.end_of(durable)
        high = low if gang is None else self._schedule.end_of(max(gang.acked_step, durable))
        return Usage(
            resident_bytes=sum(nbytes for _, nbytes in totals.values()),
            resident_objects=sum(count for count, _ in totals.values()),
            reserved_bytes=leases[1],
            live_leases=leases[0],
            garbage_bytes=totals["garbage"][1],
            kept_bytes=totals["kept"][1],
            trained_bytes=self._db.integer("bytes_in_range", low=low, high=high) if high > low else 0,
        )

    def releasable(self, *, limit: int) -> Sequence[StoredObject]:
        return _stored(self._db.all("releasable", limit=limit))

    def forget_objects(self, keys: Sequence[ObjectKey]) -> None:
        with self._db.transaction():
            for key in keys:
                self._db.run("forget_garbage", generation=generation_of(key), key=key)

    def live_keys(self, keys: Sequence[ObjectKey]) -> frozenset[ObjectKey]:
        return frozenset(key for key in keys if self._db.integer("is_live_key", generation=generation_of(key), key=key))

    def mark_missing(self, keys: Sequence[ObjectKey], *, reason: str, now: float) -> int:
        with self._db.transaction():
            self._pick_keys(keys)
            lost = self._lose_picked()
            self._db.run("forget_picked")
            if lost:
                message = f"{counted(lost, 'sample')}: {reason}"
                self._note(wire.Incident(klass="SampleLost", unit="store", message=message, detected=now))
        return lost

    def resident(self, *, after: ObjectKey | None, limit: int) -> Sequence[StoredObject]:
        cursor = 0 if after is None else generation_of(after)
        return _stored(self._db.all("resident", after=cursor, limit=limit))

    def evictable_bytes(self, above_sequence: int) -> int:
        return self._db.integer("evictable_bytes", above=above_sequence)

    def evict(self, *, nbytes: int, above_sequence: int, now: float) -> int:
        with self._db.transaction():
            self._db.run("clear_picked")
            self._db.run("pick_to_evict", nbytes=nbytes, above=above_sequence)
            freed = self._db.integer("picked_bytes")
            self._lose_picked()
            self._move_picked_objects("discard_picked")
        return freed


def _stored(rows: list[Row]) -> tuple[StoredObject, ...]:
    return tuple(StoredObject(key=ObjectKey(key), length=length) for key, length in rows)
