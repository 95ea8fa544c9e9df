"""`SharedDirFeatureStore`: features as files of a directory that all pods mount."""

from pathlib import Path

from eyas_contract.ids import JobUid
from eyas_runtime.features.blobs.shared_dir import SharedDirBlobStore
from eyas_runtime.features.store import FeatureStore


class SharedDirFeatureStore(FeatureStore):
    """Feature store in the directory `path`. Raises `Unauthenticated` at once for a wrong or missing token."""

    def __init__(
        self,
        path: Path,
        *,
        job_uid: JobUid,
        token: bytes | None = None,
        create: bool = True,
        digest: str = "blake3",
        retain_on_release: bool = False,
        max_resident_bytes: int | None = None,
        max_hold_age_seconds: float | None = None,
        deadline_seconds: float = 10.0,
    ) -> None:
        blobs = SharedDirBlobStore(path, token=token, create=create, deadline_seconds=deadline_seconds)
        blobs.connect()
        super().__init__(
            blobs,
            job_uid=job_uid,
            digest=digest,
            retain_on_release=retain_on_release,
            max_resident_bytes=max_resident_bytes,
            max_hold_age_seconds=max_hold_age_seconds,
        )
