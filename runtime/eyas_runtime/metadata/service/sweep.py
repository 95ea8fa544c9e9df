"""One look at the pool: delete what it holds and nobody knows, and find the rows whose object it does not hold.

Order is everything. A key is minted and leased before its object exists. So whoever lists first and asks afterwards
which keys are live finds every listed key either live or an orphan for ever; asked the other way round, an object put
and committed in between would look like an orphan. For the same reason a row may be younger than the listing: before
it counts as missing, its object is looked for once more.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from eyas_contract.ids import JobUid, ObjectKey, key_prefix
from eyas_runtime.core.retention import sweep_candidates, sweepable
from eyas_runtime.failpoints import hit
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.metadata.port import StoredObject

BATCH: Final = 256
"""Keys asked about in one call of the store's thread, so that no other call waits long."""
Listing = Mapping[str, int | None]
"""Key to length in bytes; None where the pool does not tell."""
Live = Callable[[Sequence[ObjectKey]], Collection[ObjectKey]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What one sweep saw and did."""

    listing: Listing
    deleted: int
    held: int
    """Orphans that a reader still holds; the next sweep gets them."""


def sweep_orphans(blobs: BlobStore, *, job_uid: JobUid, store_epoch: int, live: Live) -> Sweep:
    """Delete this job's objects of store epochs up to `store_epoch` that are not live.

    `live(keys)` answers which of `keys` are in a row or in a live lease *now*; the listing is complete before the first
    call. Raises what `blobs` and `live` raise; what was deleted until then was an orphan.
    """
    listing = {blob.key: blob.length for blob in blobs.list(key_prefix(job_uid))}
    hit("sweep.after_list")
    candidates = sweep_candidates(listing, job_uid=job_uid, store_epoch=store_epoch)
    orphans = deleted = 0
    for start in range(0, len(candidates), BATCH):
        batch = candidates[start : start + BATCH]
        for key in sweepable(batch, live(batch)):
            orphans += 1
            deleted += blobs.delete(key)
    return Sweep(listing=listing, deleted=deleted, held=orphans - deleted)


def missing_objects(blobs: BlobStore, rows: Sequence[StoredObject], listing: Listing) -> tuple[ObjectKey, ...]:
    """Keys of `rows` whose object is not in the pool, or is there with another length."""
    unlisted = [row.key for row in rows if row.key not in listing]
    found = blobs.exists_many(unlisted) if unlisted else ()
    absent = [key for key, there in zip(unlisted, found, strict=True) if not there]
    return (*absent, *(row.key for row in rows if listing.get(row.key) not in (None, row.length)))
