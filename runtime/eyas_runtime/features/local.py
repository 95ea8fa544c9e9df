"""`LocalFeatureStore`: features in this process's memory, for the colocated mode and for tests."""

from eyas_contract.ids import JobUid
from eyas_runtime.features.blobs.memory import MemoryBlobStore, MemoryPool
from eyas_runtime.features.store import FeatureStore


class LocalFeatureStore(FeatureStore):
    """Feature store in memory; stores that share a `pool` see the same objects."""

    def __init__(
        self,
        *,
        job_uid: JobUid,
        pool: MemoryPool | None = None,
        token: bytes | None = None,
        digest: str = "blake3",
        retain_on_release: bool = False,
        max_resident_bytes: int | None = None,
        max_hold_age_seconds: float | None = None,
    ) -> None:
        super().__init__(
            MemoryBlobStore(pool, token=token),
            job_uid=job_uid,
            digest=digest,
            retain_on_release=retain_on_release,
            max_resident_bytes=max_resident_bytes,
            max_hold_age_seconds=max_hold_age_seconds,
        )
