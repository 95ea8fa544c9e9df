"""The orphan sweep: delete what the store holds and nobody knows, and nothing that somebody may still come to know.

Order is everything. A key is minted and leased before its object exists. So whoever lists first and asks afterwards
which keys are known finds every listed key either known or an orphan for ever; asked the other way round, an object
put and committed in between would look like an orphan. Keys of a newer store epoch are never touched: their metadata
service is a newer one, and we are the stale holder.
"""

from collections.abc import Callable, Sequence, Set
from typing import Final

import msgspec

from eyas_contract.ids import JobUid, key_prefix, store_epoch_of
from eyas_runtime.failpoints import hit
from eyas_runtime.features.blobs.port import BlobStore

BATCH_KEYS: Final = 1000
"""Keys asked about in one call of `known`."""
Known = Callable[[Sequence[str]], Set[str]]


class SweepResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one sweep found and did; counts of keys."""

    listed: int
    newer: int
    """Of a newer store epoch than ours, left alone."""
    known: int
    deleted: int
    held: int
    """Orphans that a reader still holds; the next sweep gets them."""
    temporary: int
    """Temporary files of dead writers."""


def sweep_orphans(
    blobs: BlobStore, *, job_uid: JobUid, store_epoch: int, known: Known, writers_are_gone: bool = False
) -> SweepResult:
    """Delete this job's objects of epochs up to `store_epoch` that are not known.

    `known(keys)` answers which of `keys` are leased or in a row *now*; it is called only after the listing is complete.
    """
    listed = [blob.key for blob in blobs.list(key_prefix(job_uid))]
    hit("sweep.after_list")
    ours = [key for key in listed if store_epoch_of(key) <= store_epoch]
    known_count = deleted = held = 0
    for start in range(0, len(ours), BATCH_KEYS):
        batch = ours[start : start + BATCH_KEYS]
        kept = known(batch)
        known_count += sum(key in kept for key in batch)
        for key in batch:
            if key in kept:
                continue
            hit("release.before_delete")
            gone = blobs.delete(key)
            hit("release.after_delete")
            deleted += gone
            held += not gone
    return SweepResult(
        listed=len(listed),
        newer=len(listed) - len(ours),
        known=known_count,
        deleted=deleted,
        held=held,
        temporary=blobs.sweep_temporary(writers_are_gone=writers_are_gone),
    )
