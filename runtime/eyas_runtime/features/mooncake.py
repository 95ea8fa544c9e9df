"""`MooncakeFeatureStore`: features in a Mooncake pool, over TCP or RDMA."""

from eyas_contract.ids import JobUid
from eyas_runtime.features.blobs.mooncake import MooncakeBlobStore
from eyas_runtime.features.blobs.mooncake_client import ClientSettings
from eyas_runtime.features.store import FeatureStore


class MooncakeFeatureStore(FeatureStore):
    """Feature store in the pool of `settings`; joins it at the first call, so it may be made before the master runs."""

    def __init__(
        self,
        settings: ClientSettings,
        *,
        job_uid: JobUid,
        admin_address: str | None = None,
        digest: str = "blake3",
        digest_threads: int = 1,
        retain_on_release: bool = False,
        max_resident_bytes: int | None = None,
        max_hold_age_seconds: float | None = None,
        deadline_seconds: float = 10.0,
    ) -> None:
        super().__init__(
            MooncakeBlobStore(settings, admin_address=admin_address, deadline_seconds=deadline_seconds),
            job_uid=job_uid,
            digest=digest,
            digest_threads=digest_threads,
            retain_on_release=retain_on_release,
            max_resident_bytes=max_resident_bytes,
            max_hold_age_seconds=max_hold_age_seconds,
        )
