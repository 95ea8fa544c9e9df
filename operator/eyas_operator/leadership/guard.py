"""A `Cluster` that writes only while this process leads: everybody else's `Cluster` behind one comparison.

Every write is guarded once more by a resource version, a UID or a name that is used once, so this is the second lock on
the door. It is there for the process that was paused for longer than its Lease and wakes in the middle of a pass.
"""

from collections.abc import Callable

from eyas_contract.errors import Fenced
from eyas_contract.wire import StatusReply
from eyas_operator.cluster import Cluster, Event, Glimpse, ObjectRef, SecretShape
from eyas_operator.names import JobIdentity
from eyas_operator.world import Children, Claim, JobRecord, Manifest, Pod


class LedCluster:
    """`inner`, which raises `Fenced` instead of writing when `leading` is false."""

    def __init__(self, inner: Cluster, leading: Callable[[], bool]) -> None:
        self._inner = inner
        self._leading = leading

    def _writes(self) -> Cluster:
        if not self._leading():
            raise Fenced("another operator may lead: nothing is written")
        return self._inner

    def glance(self, namespace: str, name: str) -> Glimpse | None:
        return self._inner.glance(namespace, name)

    async def read_job(self, namespace: str, name: str) -> JobRecord | None:
        return await self._inner.read_job(namespace, name)

    async def list_children(self, job: JobIdentity) -> Children:
        return await self._inner.list_children(job)

    async def read_claim(self, namespace: str, name: str) -> Claim | None:
        return await self._inner.read_claim(namespace, name)

    async def read_report(self, job: JobIdentity, pod: Pod) -> StatusReply | None:
        return await self._inner.read_report(job, pod)

    def reader_is_stale(self, job: JobIdentity) -> bool:
        return self._inner.reader_is_stale(job)

    async def create(self, manifest: Manifest) -> None:
        await self._writes().create(manifest)

    async def apply(self, manifest: Manifest) -> None:
        await self._writes().apply(manifest)

    async def ensure_secret(self, shape: SecretShape) -> None:
        await self._writes().ensure_secret(shape)

    async def delete(self, job: JobIdentity, target: ObjectRef, *, grace_seconds: int) -> None:
        await self._writes().delete(job, target, grace_seconds=grace_seconds)

    async def write_status(self, job: JobRecord, status: Manifest) -> JobRecord:
        return await self._writes().write_status(job, status)

    async def set_finalizer(self, job: JobRecord, *, present: bool) -> None:
        await self._writes().set_finalizer(job, present=present)

    async def delete_job(self, job: JobIdentity) -> None:
        await self._writes().delete_job(job)

    async def post_events(self, job: JobIdentity, events: tuple[Event, ...]) -> None:
        await self._writes().post_events(job, events)
