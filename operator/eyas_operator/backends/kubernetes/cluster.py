"""The `Cluster` port on a Kubernetes API server.

Reads that decide are authoritative (no resource version is named, so the API server answers from its newest state);
what the watches told is only glanced at. Every write is idempotent or guarded: pods are created under names that are
used once, deletes name a UID, the status names a resource version.
"""

import base64
import contextlib
import secrets
from typing import Final

import msgspec

from eyas_contract import env
from eyas_contract.errors import Conflict
from eyas_contract.wire import StatusReply
from eyas_operator import names
from eyas_operator.backends.kubernetes.cache import ChildrenCache, JobKey, JobsCache
from eyas_operator.backends.kubernetes.client import KubeClient
from eyas_operator.backends.kubernetes.errors import Exists, Missing
from eyas_operator.backends.kubernetes.keys import OperatorKeys
from eyas_operator.backends.kubernetes.listing import all_children, decode, job_record, list_children, list_jobs
from eyas_operator.backends.kubernetes.recorder import Recorder
from eyas_operator.backends.kubernetes.report import JOBS_MAX, Reports
from eyas_operator.backends.kubernetes.resources import CLAIMS, JOBS, OTHERS, PODS, SECRETS, resource_of
from eyas_operator.cluster import Event, Glimpse, ObjectRef, SecretShape
from eyas_operator.errors import Refused
from eyas_operator.names import JobIdentity
from eyas_operator.world import Children, Claim, JobRecord, Manifest, Metadata, Pod, metadata_alone

MINTED_BYTES: Final = 32
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class _Bare(msgspec.Struct):
    metadata: Metadata


class KubernetesCluster:
    """All jobs that this operator may see. The caches are fed from outside, by watches, and by every read here."""

    def __init__(self, client: KubeClient, *, keys: OperatorKeys, reports: Reports, recorder: Recorder) -> None:
        self.client = client
        """For what is no job's business: the lease of the leader."""
        self._keys = keys
        self._reports = reports
        self._recorder = recorder
        self._readers: dict[str, tuple[str, ...]] = {}
        """Read tokens that this process wrote last, by the job's UID."""
        self.children = ChildrenCache()
        self.jobs = JobsCache()

    def glance(self, namespace: str, name: str) -> Glimpse | None:
        record = self.jobs.job(namespace, name)
        children = self.children.children(record.identity) if record is not None else None
        return Glimpse(record=record, children=children) if record is not None and children is not None else None

    async def relist(self, namespace: str) -> frozenset[JobKey]:
        """List the jobs of `namespace` (`*`: of all) and all their children afresh into the caches.

        Returns (namespace, name) of every job there; to be called once a minute, and before anything is glanced at.
        """
        jobs = await list_jobs(self.client, namespace)
        self.children.replace(namespace, await list_children(self.client, namespace))
        self.jobs.replace(namespace, jobs)
        return frozenset((record.identity.namespace, record.identity.name) for record in jobs.items)

    def versions(self) -> dict[str, int]:
        """Version of every job and child that the caches hold, by UID."""
        return self.jobs.versions() | self.children.versions()

    async def read_job(self, namespace: str, name: str) -> JobRecord | None:
        path = JOBS.item(namespace, name)
        try:
            raw = await self.client.get(path)
        except Missing:
            known = self.jobs.job(namespace, name)
            if known is not None:
                self.jobs.remove(known.identity)
            return None
        return self._told(raw, path)

    async def list_children(self, job: JobIdentity) -> Children:
        listing = await list_children(self.client, job.namespace, job=job)
        self.children.replace_job(job, listing)
        return all_children(listing)

    async def read_claim(self, namespace: str, name: str) -> Claim | None:
        path = CLAIMS.item(namespace, name)
        try:
            return decode(await self.client.get(path), Claim, path)
        except Missing:
            return None

    async def read_report(self, job: JobIdentity, pod: Pod) -> StatusReply | None:
        return await self._reports.read(job, pod)

    def reader_is_stale(self, job: JobIdentity) -> bool:
        # Written once by each process and for each key: the kubelet takes a minute or two to bring it into the pod.
        return self._reports.stale(job) and self._readers.get(job.job_uid) != self._keys.tokens(
            env.TOKEN_READER, job.job_uid
        )

    async def create(self, manifest: Manifest) -> None:
        resource, meta = resource_of(manifest["kind"]), manifest["metadata"]
        try:
            await self.client.create(resource.collection(meta["namespace"]), manifest)
        except Exists as error:
            path = resource.item(meta["namespace"], meta["name"])
            present = await self._metadata(path)
            if present is None:
                raise Conflict(f"{path} was there and is gone") from error
            if not _same_owner(present, manifest):
                raise _foreign(manifest) from error
            if not _same_job(present, manifest):
                if resource not in OTHERS:
                    raise _foreign(manifest) from error
                # No list finds it: somebody took its label away.
                await self._applied(path, metadata_alone(manifest), present.uid)

    async def apply(self, manifest: Manifest) -> None:
        resource, meta = resource_of(manifest["kind"]), manifest["metadata"]
        path = resource.item(meta["namespace"], meta["name"])
        present = await self._metadata(path)
        if present is not None:
            # By its owner alone: somebody may have taken its label away.
            if not _same_job(present, manifest) and not (
                meta.get("ownerReferences") and _same_owner(present, manifest)
            ):
                raise _foreign(manifest)
            await self._applied(path, manifest, present.uid)
        else:
            await self.client.apply(path, manifest)

    async def ensure_secret(self, shape: SecretShape) -> None:
        meta = shape.manifest["metadata"]
        if shape.minted:
            minted = {key: secrets.token_hex(MINTED_BYTES) for key in shape.minted}
            manifest = shape.manifest | {"data": _encoded(minted), "immutable": not shape.derived}
            with contextlib.suppress(Exists):
                # Kept as it is, and never read: it may hold the tokens of pods that run.
                await self.client.create(SECRETS.collection(meta["namespace"]), manifest)
        if shape.derived:
            uid = meta["labels"][names.LABEL_JOB_UID].replace("-", "")
            derived = {key: "\n".join(self._keys.tokens(key, uid)) for key in shape.derived}
            manifest = shape.manifest | {"data": _encoded(derived)}
            await self.client.apply(SECRETS.item(meta["namespace"], meta["name"]), manifest)
            self._readers.pop(uid, None)
            self._readers[uid] = self._keys.tokens(env.TOKEN_READER, uid)
            while len(self._readers) > JOBS_MAX:
                del self._readers[next(iter(self._readers))]

    async def delete(self, job: JobIdentity, target: ObjectRef, *, grace_seconds: int) -> None:
        resource = resource_of(target.kind)
        grace = grace_seconds if resource is PODS else None
        # Gone, or another object of that name (a failed precondition is a conflict): both are none of ours.
        with contextlib.suppress(Missing, Conflict):
            await self.client.delete(resource.item(job.namespace, target.name), uid=target.uid, grace_seconds=grace)

    async def write_status(self, job: JobRecord, status: Manifest) -> JobRecord:
        path = JOBS.item(job.identity.namespace, job.identity.name)
        meta = job.body["metadata"] | {"uid": job.identity.uid, "resourceVersion": job.resource_version}
        try:
            raw = await self.client.replace(f"{path}/status", job.body | {"metadata": meta, "status": status})
        except Missing as error:
            raise Conflict(f"{path} is gone") from error
        return self._told(raw, path)

    async def set_finalizer(self, job: JobRecord, *, present: bool) -> None:
        path = JOBS.item(job.identity.namespace, job.identity.name)
        others = [name for name in job.finalizers if name != names.FINALIZER]
        wanted = [*others, names.FINALIZER] if present else others
        meta = {"uid": job.identity.uid, "resourceVersion": job.resource_version, "finalizers": wanted}
        try:
            self._told(await self.client.merge(path, {"metadata": meta}), path)
        except Missing as error:
            raise Conflict(f"{path} is gone") from error

    async def delete_job(self, job: JobIdentity) -> None:
        with contextlib.suppress(Missing, Conflict):
            await self.client.delete(JOBS.item(job.namespace, job.name), uid=job.uid)

    async def post_events(self, job: JobIdentity, events: tuple[Event, ...]) -> None:
        await self._recorder.post(job, events)

    async def close(self) -> None:
        """End all connections."""
        await self._reports.close()
        await self.client.close()

    async def _applied(self, path: str, manifest: Manifest, uid: str) -> None:
        """The UID guards: an object that took the name since then is not touched."""
        await self.client.apply(path, manifest | {"metadata": manifest["metadata"] | {"uid": uid}})

    async def _metadata(self, path: str) -> Metadata | None:
        try:
            return decode(await self.client.get(path, accept=_METADATA_ONLY), _Bare, path).metadata
        except Missing:
            return None

    def _told(self, raw: bytes, path: str) -> JobRecord:
        record = job_record(decode(raw, dict, path))
        self.jobs.put(record)
        return record


def _foreign(manifest: Manifest) -> Refused:
    meta = manifest["metadata"]
    said = f"{manifest['kind']} {meta['namespace']}/{meta['name']} is there already and belongs to somebody else"
    return Refused(f"{said}: delete it, or give this job another name")


def _same_job(present: Metadata, manifest: Manifest) -> bool:
    uid: str = manifest["metadata"].get("labels", {}).get(names.LABEL_JOB_UID, "")
    return bool(uid) and present.labels.get(names.LABEL_JOB_UID) == uid


def _same_owner(present: Metadata, manifest: Manifest) -> bool:
    """A label can be written by anybody; what we create and never write again must be owned as we own it."""
    wanted = {owner["uid"] for owner in manifest["metadata"].get("ownerReferences", ())}
    return wanted <= {owner.uid for owner in present.owner_references if owner.controller}


def _encoded(values: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(f"{value}\n".encode()).decode() for key, value in values.items()}
