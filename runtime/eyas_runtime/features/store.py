"""The feature store as producers and ranks use it: tensors in under a minted key, verified tensors out.

It joins `blobs` and `codec`. Keys and generations come from the metadata service with the task; nothing is written
under a key of our own making, and a key is written once. What is read is digested while it arrives and becomes a tensor
only when digest, header and shapes agree with the ref: everything else is `Corrupt` or `NotReadable`, both of which
mean a lost sample. Fetched tensors own their memory: changing them changes nothing in the store.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import msgspec

from eyas_contract.errors import Conflict, Corrupt, EyasError, NotReadable, StoreFull, Transient, UserError
from eyas_contract.ids import JobUid, generation_of, sequence_of, valid_key
from eyas_contract.refs import SCHEMA_VERSION, FeatureHandle, FeatureSpec, PromptTask, SampleRef, TargetRepr
from eyas_runtime import digests
from eyas_runtime.features.blobs.port import BlobStore, HealthValue
from eyas_runtime.features.codec import tensors as codec
from eyas_runtime.features.codec.header import Identity
from eyas_runtime.features.residency import Residency

HASH_THREADS: Final = 2
"""Blobs digested at the same time as they are put; more puts at once wait for a thread."""
INLINE_BYTES: Final = 1 << 20
"""Smaller blobs are digested before the put: a hand-over to a thread costs more."""
Digests = tuple[str, str]


class SampleMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What the producer knows of a sample beyond its tensors."""

    num_tokens: int
    num_supervised: int
    strategy: str = "eagle3"
    fingerprint: str = ""
    target_repr: TargetRepr | None = None
    """Stamped on the spec of `target_feature_name`, if the sample has that feature."""
    target_feature_name: str = "target"


class GcResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one `gc` did."""

    force_freed: int
    force_freed_bytes: int
    release_pending: int
    """Deletions that the store refused for now."""


class FeatureStore:
    """Feature store of one process of the job `job_uid` over `blobs`.

    `retain_on_release` keeps objects after their last release (ranks do: the service deletes after a durable
    checkpoint); without it the last release frees. `objects_serve_many`: ingested files, whose object is read under
    every sequence number that uses the file. `max_resident_bytes` bounds what this process put and is not freed.
    """

    def __init__(
        self,
        blobs: BlobStore,
        *,
        job_uid: JobUid,
        digest: str = "blake3",
        digest_threads: int = 1,
        retain_on_release: bool = False,
        objects_serve_many: bool = False,
        max_resident_bytes: int | None = None,
        max_hold_age_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        digests.hasher(digest)
        self.blobs: Final = blobs
        self._job_uid = job_uid
        self._digest = digest
        self._digest_threads = digest_threads
        self._retain = retain_on_release
        self._objects_serve_many = objects_serve_many
        self._max_hold = max_hold_age_seconds
        self._clock = clock
        self._residency = Residency(max_bytes=max_resident_bytes)
        self._hashing = ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="eyas-digest")
        self._force_freed_total = 0

    def put(self, tensors: codec.Tensors, task: PromptTask, metadata: SampleMetadata) -> SampleRef:
        """Store `tensors` of any device under the key that `task` holds, completely, and describe them.

        A repeat with equal tensors under the same key succeeds, so a call that ended in `Transient` may be repeated.
        Raises `StoreFull`, `Transient`, `Conflict` (the key holds something else), `UserError` (task without key, names
        or dtypes that cannot be stored). After an error nothing readable was left, as far as the store answered.
        """
        key = self._key_of(task)
        identity = Identity(
            job_uid=self._job_uid, sample_id=task.sample_id, sequence=task.sequence, generation=task.generation
        )
        encoded = codec.encode(tensors, identity)
        first = self._reserve(key, encoded.length)
        try:
            digest, payload_digest = self._store(key, encoded)
        except BaseException as error:
            if first:
                self._residency.forget(key)
                self._clean_up(key, error)
            raise
        return SampleRef(
            sample_id=task.sample_id,
            sequence=task.sequence,
            key=valid_key(key),
            generation=task.generation,
            digest=digest,
            payload_digest=payload_digest,
            length=encoded.length,
            num_tokens=metadata.num_tokens,
            num_supervised=metadata.num_supervised,
            feature_specs=_stamped(encoded.specs, metadata),
            strategy=metadata.strategy,
            fingerprint=metadata.fingerprint,
        )

    def get(
        self, ref: SampleRef, device: str = "cpu", names: Collection[str] | None = None
    ) -> tuple[codec.OwnedTensors, FeatureHandle]:
        """All tensors of `ref`, or those of `names`, on `device`, and the lease that `release` takes.

        Raises `NotReadable` (freed, superseded, lost), `Corrupt` (bytes that are not the ref's), `Transient`.
        """
        key = self._readable_key(ref, names)
        token = self._residency.lease(key)
        try:
            state = digests.hasher(digests.algorithm_of(ref.digest), threads=self._digest_threads)
            blob = self.blobs.get(key, ref.length, state.update)
            digests.check(f"{digests.algorithm_of(ref.digest)}:{state.hexdigest()}", ref.digest, key)
            identity = Identity(
                job_uid=self._job_uid, sample_id=ref.sample_id, sequence=ref.sequence, generation=ref.generation
            )
            found = codec.decode(blob, ref, identity, names, any_use=self._objects_serve_many)
            moved = {name: tensor.to(device) for name, tensor in found.items()}
        except BaseException:
            self._residency.end_lease(token)
            raise
        return moved, FeatureHandle(sample_id=ref.sample_id, generation=ref.generation, lease_token=token)

    def release(self, handle: FeatureHandle, reason: str = "consumed") -> None:
        """End the lease of `handle`; frees the object if it was the last one and the store does not retain.

        A repeat, or a handle of an older generation, does nothing. `reason` is for the log of whoever subclasses.
        """
        key = self._residency.end_lease(handle.lease_token)
        if key is not None and not self._retain:
            self._free(key, spare_leased=True)

    def abort(self, sample: SampleRef | str, reason: str = "aborted") -> None:
        """Free the object of a ref or key now, whatever the leases. Unknown is no error.

        The key is unreadable here from this moment; where another process holds a transfer lease the bytes go with it.
        """
        key = sample.key if isinstance(sample, SampleRef) else valid_key(sample)
        self._free(key, spare_leased=False)

    def hand_over(self, ref: SampleRef) -> None:
        """The metadata service answers for the object of `ref` now, as for all that producers put: stop counting it.

        It neither fills `max_resident_bytes` nor ends by `gc` here; `abort` still frees it. A repeat does nothing.
        """
        self._residency.hand_over(ref.key)

    def gc(self, now: float | None = None, leased_elsewhere: Set[str] = frozenset()) -> GcResult:
        """Free what this process put longer than the hold age ago and nobody leases, and retry refused deletions.

        `leased_elsewhere` are keys that the metadata service knows to be leased. Idempotent.
        """
        at = self._clock() if now is None else now
        freed = freed_bytes = 0
        for key in self._residency.pending():
            self._delete(key)
        if self._max_hold is not None:
            for key in self._residency.expired(at - self._max_hold, leased_elsewhere):
                before = self._free(key, spare_leased=True)
                freed += before is not None
                freed_bytes += before or 0
        self._force_freed_total += freed
        return GcResult(
            force_freed=freed, force_freed_bytes=freed_bytes, release_pending=len(self._residency.pending())
        )

    def health(self) -> Mapping[str, HealthValue]:
        """Flat numbers and words of this process's view and of the store."""
        totals = self._residency.totals(self._clock())
        return {
            **self.blobs.health(),
            "store_id": self._job_uid,
            **{name: getattr(totals, name) for name in totals.__slots__},
            "max_resident_bytes": -1 if self._residency.max_bytes is None else self._residency.max_bytes,
            "force_freed_total": self._force_freed_total,
        }

    @staticmethod
    def estimate_bytes(specs: Sequence[FeatureSpec]) -> int:
        """Bytes of tensors with `specs`; an unknown dtype counts four bytes an element."""
        return sum(spec.nbytes() for spec in specs)

    def close(self) -> None:
        """Let go of threads and of the blob store's client."""
        self._hashing.shutdown(wait=False)
        self.blobs.close()

    def _key_of(self, task: PromptTask) -> str:
        if task.key is None:
            raise UserError(f"the task of {task.sample_id} holds no key; only captured members of a group are put")
        key = valid_key(task.key)
        if sequence_of(task.sample_id) != task.sequence or generation_of(key) != task.generation:
            raise UserError(f"the task of {task.sample_id} does not agree with its own key or sequence number")
        return key

    def _readable_key(self, ref: SampleRef, names: Collection[str] | None) -> str:
        key = valid_key(ref.key)
        if ref.schema_version != SCHEMA_VERSION:
            raise UserError(
                f"{ref.sample_id}: the ref has schema {ref.schema_version}, this version reads {SCHEMA_VERSION}"
            )
        if sequence_of(ref.sample_id) != ref.sequence:
            raise Corrupt(f"{ref.sample_id}: the ref names sequence number {ref.sequence}")
        if generation_of(key) != ref.generation:
            raise NotReadable(f"{ref.sample_id}: generation {ref.generation} is not the one under {key}")
        missing = set(names or ()) - {spec.name for spec in ref.feature_specs}
        if missing:
            raise NotReadable(f"{ref.sample_id} has no feature {sorted(missing)[:8]}")
        return key

    def _reserve(self, key: str, length: int) -> bool:
        now = self._clock()
        try:
            return self._residency.reserve(key, length, now)
        except StoreFull:
            # Other processes free what we put; look before refusing.
            ours = self._residency.put_here()
            for known, exists in zip(ours, self.blobs.exists_many(ours), strict=True):
                if not exists:
                    self._residency.forget(known)
            return self._residency.reserve(key, length, now)

    def _store(self, key: str, encoded: codec.Encoded) -> Digests:
        hashing: Future[Digests] = Future()
        if encoded.length < INLINE_BYTES:
            hashing.set_result(self._digests_of(encoded))
        else:
            hashing = self._hashing.submit(self._digests_of, encoded)
        try:
            self.blobs.put(key, encoded.parts)
        except Conflict:
            if not self._holds(key, encoded.length, hashing.result()[0]):
                raise
        return hashing.result()

    def _clean_up(self, key: str, error: BaseException) -> None:
        """Try to leave nothing when it is unknown whether the bytes arrived; the sweep finds what stays."""
        if isinstance(error, Transient) and not isinstance(error, StoreFull):
            with suppress(EyasError):
                self.blobs.delete(key)

    def _digests_of(self, encoded: codec.Encoded) -> Digests:
        return digests.digest_pair(encoded.head, encoded.payload, self._digest, threads=self._digest_threads)

    def _holds(self, key: str, length: int, digest: str) -> bool:
        """Whether `key` already holds exactly these bytes: an earlier put of ours whose answer was lost."""
        with suppress(NotReadable):
            return digests.digest_of([self.blobs.get(key, length)], self._digest) == digest
        return False

    def _free(self, key: str, *, spare_leased: bool) -> int | None:
        if not self._residency.begin_free(key, spare_leased=spare_leased):
            return None
        return self._delete(key)

    def _delete(self, key: str) -> int:
        """Delete the object; bytes that it counted here, 0 while the store refuses (gc tries again)."""
        with suppress(Transient):
            if self.blobs.delete(key):
                return self._residency.forget(key)
        return 0


def _stamped(specs: tuple[FeatureSpec, ...], metadata: SampleMetadata) -> tuple[FeatureSpec, ...]:
    if metadata.target_repr is None:
        return specs
    return tuple(
        msgspec.structs.replace(spec, target_repr=metadata.target_repr)
        if spec.name == metadata.target_feature_name
        else spec
        for spec in specs
    )
