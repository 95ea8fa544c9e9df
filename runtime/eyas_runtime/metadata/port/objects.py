"""The part of the port about stored objects: which are in use, which may go, which are gone."""

from collections.abc import Sequence
from typing import Protocol

from eyas_contract.ids import ObjectKey
from eyas_runtime.metadata.port.values import StoredObject, Usage


class ObjectRecords(Protocol):
    """Objects in the pool, as the job knows them."""

    def usage(self) -> Usage: ...
    def releasable(self, *, limit: int) -> Sequence[StoredObject]:
        """Objects all of whose uses are trained in windows <= durable step, or superseded, or dead."""
        ...

    def forget_objects(self, keys: Sequence[ObjectKey]) -> None:
        """They were deleted from the store."""
        ...

    def live_keys(self, keys: Sequence[ObjectKey]) -> frozenset[ObjectKey]:
        """Those of `keys` that are in a row or in a live lease: the sweep must spare them."""
        ...

    def mark_missing(self, keys: Sequence[ObjectKey], *, reason: str, now: float) -> int:
        """Ready samples whose object is not in the pool become lost. Returns how many."""
        ...

    def resident(self, *, after: ObjectKey | None, limit: int) -> Sequence[StoredObject]:
        """Objects that are in use or kept, in order of generation, for comparison with a listing of the pool.

        `after` is a cursor: the last key of the page before.
        """
        ...

    def evictable_bytes(self, above_sequence: int) -> int:
        """Bytes of objects in use whose lowest use is >= `above_sequence`."""
        ...

    def evict(self, *, nbytes: int, above_sequence: int, now: float) -> int:
        """Make ready samples lost, from the highest sequence number down to `above_sequence`, to free `nbytes`."""
        ...
