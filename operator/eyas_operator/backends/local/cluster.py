"""The `Cluster` port on this machine: pods are processes, claims are folders, everything else is files.

Everything that must survive the runner is in DIR before a call returns; pods do not survive it, by design. Errors as
in the port; `UserError` means that this machine cannot do it (`Kubelet.trouble`).
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from eyas_contract import env, wire
from eyas_contract.client import MetadataClient
from eyas_contract.errors import Conflict, EyasError
from eyas_operator import names
from eyas_operator.backends.local.addresses import address_of
from eyas_operator.backends.local.claims import Claims
from eyas_operator.backends.local.folder import Workdir, read_json, replace_json
from eyas_operator.backends.local.kubelet import Kubelet
from eyas_operator.backends.local.objects import CLAIM, Objects, new_uid
from eyas_operator.backends.local.secrets import Secrets
from eyas_operator.cluster import Event, ObjectRef, SecretShape
from eyas_operator.names import JobIdentity, Role
from eyas_operator.world import Child, Children, Claim, ClaimStatus, JobRecord, Manifest, Pod, time_of

REPORT_SECONDS: Final = 1.0
"""How long the metadata service may take to answer; it is on this machine."""
REPORT_FILE: Final = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalJob:
    """The job as this run has it."""

    identity: JobIdentity
    generation: int
    body: Manifest


class LocalCluster:
    """One run's world. Construct inside the running event loop that drives the passes."""

    def __init__(
        self,
        job: LocalJob,
        workdir: Workdir,
        kubelet: Kubelet,
        objects: Objects,
        claims: Claims,
        secrets: Secrets,
        tell: Callable[[tuple[Event, ...]], None],
    ) -> None:
        """`tell` gets the events of a pass after its writes."""
        self._job = job
        self._workdir = workdir
        self._kubelet = kubelet
        self._objects = objects
        self._claims = claims
        self._secrets = secrets
        self._tell = tell
        self._client: MetadataClient | None = None
        self._asking: asyncio.Future[wire.StatusReply | None] | None = None
        self._deleted = False
        self.suspended = False
        """The runner was asked to stop: the job is shown with `spec.suspend`, so that it drains as on a cluster."""
        self.last_report = _stored_report(workdir)

    def glance(self, namespace: str, name: str) -> None:
        """A look is a matter of files and processes of this machine: there is nothing to spare."""

    async def read_job(self, namespace: str, name: str) -> JobRecord | None:
        if self._deleted or (namespace, name) != (self._job.identity.namespace, self._job.identity.name):
            return None
        body = self._job.body
        if self.suspended:
            body = body | {"spec": body["spec"] | {"suspend": True}}
        return JobRecord(
            identity=self._job.identity,
            generation=self._job.generation,
            resource_version=self._version(),
            body=body,
            status=read_json(self._workdir.status) or {},
            finalizers=self.finalizers,
        )

    @property
    def finalizers(self) -> tuple[str, ...]:
        """What must be done before the run may end."""
        return tuple(read_json(self._workdir.finalizers) or ())

    async def list_children(self, job: JobIdentity) -> Children:
        claims: list[Claim] = []
        others: list[Child] = []
        for stored in self._objects.all():
            if stored.kind != CLAIM:
                others.append(Child(kind=stored.kind, metadata=stored.metadata))
            elif self._claims.present(stored.name, stored.uid):
                claims.append(Claim(metadata=stored.metadata, status=ClaimStatus(phase="Bound")))
            else:
                # A claim is its folder: without it, or with another one in its place, there is no such claim.
                self._objects.delete(stored)
        pods = tuple(pod.observe() for pod in self._kubelet.pods.values())
        return Children(pods=pods, claims=tuple(claims), others=tuple(others))

    async def read_claim(self, namespace: str, name: str) -> None:
        """A folder is shared by nature."""

    async def read_report(self, job: JobIdentity, pod: Pod) -> wire.StatusReply | None:
        present = self._kubelet.pods.get(pod.metadata.name)
        if present is None or not present.ready:
            return None
        if self._asking is None:
            self._asking = asyncio.ensure_future(asyncio.to_thread(self._ask))
        # A service that is stopped answers nothing for long: the pass goes on, the question stays open.
        await asyncio.wait({self._asking}, timeout=REPORT_SECONDS)
        if not self._asking.done():
            return None
        report, self._asking = self._asking.result(), None
        if report is not None:
            self._keep(report)
        return report

    def close(self) -> None:
        """Drop the connection to the metadata service."""
        if self._client is not None:
            self._client.close()

    def _ask(self) -> wire.StatusReply | None:
        if self._client is None:
            host = address_of(self._job.identity.job_uid, Role.METADATA, 0)
            token = self._secrets.path(names.reader_secret(self._job.identity), env.TOKEN_READER)
            self._client = MetadataClient(f"http://{host}:{env.METADATA_PORT}", str(token))
        try:
            return self._client.status(deadline_seconds=REPORT_SECONDS)
        except EyasError:
            return None

    def _keep(self, report: wire.StatusReply) -> None:
        before, self.last_report = self.last_report, report
        self._kubelet.incarnation = (report.attempt, report.incarnation)
        self._kubelet.publish()
        if before is None or _milestones(before) != _milestones(report):
            replace_json(self._workdir.root / REPORT_FILE, msgspec.to_builtins(report), durable=False)

    def reader_is_stale(self, job: JobIdentity) -> bool:
        return False

    async def create(self, manifest: Manifest) -> None:
        if manifest["kind"] == "Pod":
            self._kubelet.create(manifest)
            return
        uid, name = new_uid(), manifest["metadata"]["name"]
        if manifest["kind"] == CLAIM and self._objects.find(CLAIM, name) is None:
            # The folder first: a record without a folder would be a lost claim.
            self._claims.make(name, uid)
        self._objects.create(manifest, uid=uid, now=self._now())
        self._kubelet.start_waiting()

    async def apply(self, manifest: Manifest) -> None:
        self._objects.apply(manifest, now=self._now())

    async def ensure_secret(self, shape: SecretShape) -> None:
        self._secrets.ensure(shape)

    async def delete(self, job: JobIdentity, target: ObjectRef, *, grace_seconds: int) -> None:
        if target.kind == "Pod":
            self._kubelet.delete(target.name, target.uid, grace_seconds)
            return
        stored = self._objects.find(target.kind, target.name)
        if stored is None or stored.uid != target.uid:
            return
        if stored.kind == CLAIM:
            self._claims.remove(stored.name, stored.uid)
        self._objects.delete(stored)

    async def write_status(self, job: JobRecord, status: Manifest) -> JobRecord:
        if job.resource_version != self._version():
            raise Conflict("the status of the run was written by somebody else")
        replace_json(self._workdir.status, status)
        return msgspec.structs.replace(job, status=status, resource_version=self._version())

    async def set_finalizer(self, job: JobRecord, *, present: bool) -> None:
        if job.resource_version != self._version():
            raise Conflict("the status of the run was written by somebody else")
        replace_json(self._workdir.finalizers, [names.FINALIZER] if present else [])

    async def delete_job(self, job: JobIdentity) -> None:
        self._deleted = True

    async def post_events(self, job: JobIdentity, events: tuple[Event, ...]) -> None:
        self._tell(events)

    def _version(self) -> str:
        """Changes whenever the status file or the job does, whoever wrote it."""
        try:
            raw = self._workdir.status.read_bytes()
        except FileNotFoundError:
            raw = b""
        return hashlib.sha256(b"%d/%d/" % (self._job.generation, self.suspended) + raw).hexdigest()[:32]

    def _now(self) -> str:
        return time_of(time.time())


def _milestones(report: wire.StatusReply) -> tuple[object, ...]:
    """What is worth a write: the rest changes with every look."""
    return (report.acked_step, report.durable_step, report.phase, report.samples_recaptured)


def _stored_report(workdir: Workdir) -> wire.StatusReply | None:
    raw: Any = read_json(workdir.root / REPORT_FILE)
    try:
        return msgspec.convert(raw, wire.StatusReply)
    except msgspec.ValidationError:
        return None
