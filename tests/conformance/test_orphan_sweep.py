"""The orphan sweep, over every backend: it deletes what nobody can come to know, and nothing else."""

from collections.abc import Sequence, Set

from eyas_contract.ids import JobUid, ObjectKey, key_prefix
from eyas_runtime.features.blobs.port import BlobStore, StoredBlob
from eyas_runtime.metadata.service.sweep import sweep_orphans
from support.keys import new_job, new_key
from support.mooncake_pool import wait_until


def listed(blobs: BlobStore, job_uid: JobUid) -> set[str]:
    return {blob.key for blob in blobs.list(key_prefix(job_uid))}


def sweep_until_free(blobs: BlobStore, job_uid: JobUid, live: Set[ObjectKey], *, store_epoch: int = 1) -> None:
    """Repeat the sweep while a transfer lease still holds an orphan, as the service does."""
    wait_until(lambda: sweep_orphans(blobs, job_uid=job_uid, store_epoch=store_epoch, live=lambda _: live).held == 0)


def test_orphans_go_and_known_keys_stay(blobs: BlobStore, job_uid: JobUid) -> None:
    live, orphans = {new_key(job_uid) for _ in range(3)}, {new_key(job_uid) for _ in range(3)}
    for key in live | orphans:
        blobs.put(key, b"x")
    sweep_until_free(blobs, job_uid, live)
    assert listed(blobs, job_uid) == live


def test_keys_of_a_newer_store_epoch_are_never_touched(blobs: BlobStore, job_uid: JobUid) -> None:
    old, same, newer = (new_key(job_uid, epoch=epoch) for epoch in (0, 1, 2))
    for key in (old, same, newer):
        blobs.put(key, b"x")
    sweep_until_free(blobs, job_uid, frozenset(), store_epoch=1)
    assert listed(blobs, job_uid) == {newer}


def test_another_jobs_keys_are_never_touched(blobs: BlobStore, job_uid: JobUid) -> None:
    stranger = new_job()
    foreign = new_key(stranger)
    blobs.put(foreign, b"x")
    blobs.put(new_key(job_uid), b"x")
    sweep_until_free(blobs, job_uid, frozenset())
    assert listed(blobs, stranger) == {foreign}


def test_what_is_known_is_asked_only_after_the_listing_is_complete(blobs: BlobStore, job_uid: JobUid) -> None:
    # Hazard 24: the producer commits between the listing and the comparison. Its row must be seen.
    committed_late = new_key(job_uid)
    put_after_listing = new_key(job_uid)
    blobs.put(committed_late, b"x")
    rows: set[ObjectKey] = set()
    asked: list[str] = []

    def live(keys: Sequence[ObjectKey]) -> Set[ObjectKey]:
        asked.extend(keys)
        blobs.put(put_after_listing, b"x")
        rows.add(committed_late)
        return rows

    result = sweep_orphans(blobs, job_uid=job_uid, store_epoch=1, live=live)
    assert asked == [committed_late]
    assert result.deleted == 0
    assert listed(blobs, job_uid) == {committed_late, put_after_listing}


def test_an_orphan_that_a_reader_holds_is_counted_as_held_not_as_deleted(job_uid: JobUid) -> None:
    class Held:
        """A store whose only object is leased by a reader."""

        def list(self, prefix: str) -> Sequence[StoredBlob]:
            return [StoredBlob(new_key(job_uid), None)]

        def delete(self, key: str) -> bool:
            return False

        def sweep_temporary(self, *, writers_are_gone: bool = False) -> int:
            return 0

    result = sweep_orphans(Held(), job_uid=job_uid, store_epoch=1, live=lambda _: frozenset())  # type: ignore[arg-type]
    assert (result.held, result.deleted) == (1, 0)
