"""A model of a cluster: API server, kubelet and metadata service in memory, behind the `Cluster` port.

It checks the operator's promises at every call, so that any test which drives it checks them all: no name is created
twice, a pod's number is in the stored status before the pod exists, at most one pod of an identity lives, deletes hit
only objects of this job with the UID that was listed, a status write needs the present resource version.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from eyas_contract.errors import Conflict, Transient
from eyas_contract.wire import StatusReply
from eyas_operator import names
from eyas_operator.api.status import JobStatus, Stage, load_status
from eyas_operator.cluster import Event, Glimpse, ObjectRef, SecretShape
from eyas_operator.errors import Refused
from eyas_operator.names import JobIdentity
from eyas_operator.reconciler import Outcome, Reconciler
from eyas_operator.telemetry import Telemetry
from eyas_operator.world import (
    Child,
    Children,
    Claim,
    ClaimSpec,
    ClaimStatus,
    JobRecord,
    Manifest,
    Metadata,
    Pod,
    time_of,
)
from support.operator_world import ENVIRONMENT, JOB, NOW, SETTINGS, a_body, a_report, run

TELEMETRY = Telemetry()


class OperatorDied(BaseException):
    """The operator process ended between two calls."""


@dataclass
class Thing:
    """One object."""

    kind: str
    manifest: Manifest
    uid: str
    created: str = ""
    status: dict[str, Any] = field(default_factory=dict)
    deleted: str = ""
    node: str = ""

    @property
    def metadata(self) -> Metadata:
        raw = self.manifest["metadata"] | {
            "uid": self.uid,
            "creationTimestamp": self.created,
            "deletionTimestamp": self.deleted,
        }
        return msgspec.convert(raw, Metadata)


class ModelCluster:
    """Implements the port; the test plays kubelet with the other methods."""

    def __init__(self, body: dict[str, Any] | None = None) -> None:
        self.now = NOW
        self.body = body if body is not None else a_body()
        self.generation = 1
        self.version = 1
        self.stored: Manifest = {}
        self.things: dict[tuple[str, str], Thing] = {}
        self.ever: set[str] = set()
        self.deletes: list[tuple[str, int]] = []
        self.writes = 0
        self.die_before = -1
        """The operator dies before its k-th effect from now (0: the next one)."""
        self.fail_creates = 0
        self.report: StatusReply | None = None
        self.reachable = True
        self.reader_stale = False
        self.events: list[Event] = []
        self.secrets: dict[str, int] = {}
        self.secret_writes: list[str] = []
        self.job_deleted = False
        """The job is gone."""
        self.deleting = False
        """Somebody asked for its deletion, and a finalizer holds it."""
        self.finalizers: tuple[str, ...] = ()
        self._uids = 0

    # --- the port -----------------------------------------------------------------------------------------------

    def glance(self, namespace: str, name: str) -> Glimpse | None:
        return None

    async def read_job(self, namespace: str, name: str) -> JobRecord | None:
        if self.job_deleted or (namespace, name) != (JOB.namespace, JOB.name):
            return None
        return JobRecord(
            identity=JOB,
            generation=self.generation,
            resource_version=str(self.version),
            body=self.body,
            status=self.stored,
            deleting=self.deleting,
            finalizers=self.finalizers,
        )

    async def list_children(self, job: JobIdentity) -> Children:
        mine = [thing for thing in self.things.values() if self._labelled(thing)]
        pods = [self._pod(thing) for thing in mine if thing.kind == "Pod"]
        claims = [self._claim(thing) for thing in mine if thing.kind == "PersistentVolumeClaim"]
        others = [
            Child(kind=thing.kind, metadata=thing.metadata)
            for thing in mine
            if thing.kind in ("Service", "ConfigMap", "NetworkPolicy", "PodDisruptionBudget")
        ]
        return Children(pods=tuple(pods), claims=tuple(claims), others=tuple(others))

    async def read_claim(self, namespace: str, name: str) -> Claim | None:
        thing = self.things.get(("PersistentVolumeClaim", name))
        return self._claim(thing) if thing is not None else None

    async def read_report(self, job: JobIdentity, pod: Pod) -> StatusReply | None:
        return self.report if self.reachable else None

    def reader_is_stale(self, job: JobIdentity) -> bool:
        return self.reader_stale

    async def create(self, manifest: Manifest) -> None:
        self._effect()
        key = (manifest["kind"], manifest["metadata"]["name"])
        if self.fail_creates:
            self.fail_creates -= 1
            raise Transient("the API server is busy")
        existing = self.things.get(key)
        if existing is not None:
            if not self._labelled(existing):
                raise Refused(f"{key[1]} belongs to somebody else")
            return
        if key[0] == "Pod":
            self._check_pod(manifest)
        self._add(manifest)

    async def apply(self, manifest: Manifest) -> None:
        self._effect()
        key = (manifest["kind"], manifest["metadata"]["name"])
        if key in self.things:
            if not self._labelled(self.things[key]):
                raise Refused(f"{key[1]} belongs to somebody else")
            self.things[key].manifest = manifest
        else:
            self._add(manifest)

    async def ensure_secret(self, shape: SecretShape) -> None:
        self._effect()
        name = shape.manifest["metadata"]["name"]
        self.secrets.setdefault(name, len(self.secrets))
        self.secret_writes.append(name)
        self.reader_stale = self.reader_stale and not shape.derived

    async def delete(self, job: JobIdentity, target: ObjectRef, *, grace_seconds: int) -> None:
        self._effect()
        thing = self.things.get((target.kind, target.name))
        if thing is None or thing.uid != target.uid:
            return
        owners = thing.manifest["metadata"].get("ownerReferences", [])
        assert any(owner["uid"] == JOB.uid for owner in owners), f"{target} is not ours"
        self.deletes.append((target.name, grace_seconds))
        if target.kind == "Pod":
            thing.deleted = thing.deleted or time_of(self.now + grace_seconds)
        else:
            del self.things[(target.kind, target.name)]

    async def write_status(self, job: JobRecord, status: Manifest) -> JobRecord:
        self._effect()
        if job.resource_version != str(self.version):
            raise Conflict("the job changed")
        self._check_status(load_status(self.stored), load_status(status))
        self.version += 1
        self.stored = msgspec.json.decode(msgspec.json.encode(status))
        return msgspec.structs.replace(job, resource_version=str(self.version), status=self.stored)

    async def set_finalizer(self, job: JobRecord, *, present: bool) -> None:
        self._effect()
        if job.resource_version != str(self.version):
            raise Conflict("the job changed")
        self.version += 1
        others = tuple(name for name in self.finalizers if name != names.FINALIZER)
        self.finalizers = (*others, names.FINALIZER) if present else others
        self.job_deleted = self.job_deleted or (self.deleting and not self.finalizers)

    async def delete_job(self, job: JobIdentity) -> None:
        self._effect()
        self.ask_deletion()

    async def post_events(self, job: JobIdentity, events: tuple[Event, ...]) -> None:
        self.events += events

    # --- promises -----------------------------------------------------------------------------------------------

    def _effect(self) -> None:
        if self.die_before == 0:
            self.die_before = -1
            raise OperatorDied
        self.die_before -= self.die_before > 0
        self.writes += 1

    def _check_pod(self, manifest: Manifest) -> None:
        name = manifest["metadata"]["name"]
        assert name not in self.ever, f"{name} was made twice"
        identity = names.pod_identity(manifest["metadata"]["labels"])
        assert identity is not None
        status = self.status
        if identity.role is names.Role.SWEEPER:
            assert status.cleanup.serial == identity.serial, f"{name} exists before its number is in the status"
            assert not self._writers(), f"{name} sweeps beside writers"
            return
        if "external" in self.body["spec"]["store"].get("mooncake", {}):
            assert names.FINALIZER in self.finalizers, f"{name} exists before anything holds the job for its sweep"
        index = 0 if identity.role is names.Role.CONSUMER else identity.index
        unit = next(unit for unit in status.units if (unit.role, unit.index) == (identity.role, index))
        assert unit.serial == identity.serial, f"{name} exists before its number is in the status"
        assert unit.launched
        assert status.stage is not Stage.ENDED, f"{name} is made after the end"
        if identity.role is names.Role.METADATA:
            assert identity.store_epoch == status.store_epoch

    def _writers(self) -> list[str]:
        pods = [self.pod(name) for role in ("producer", "consumer", "metadata") for name in self.names_of(role)]
        running = [pod for pod in pods if pod.status.get("phase") not in ("Succeeded", "Failed")]
        return [pod.uid for pod in running if pod.node != "unreachable"]

    @staticmethod
    def _check_status(old: JobStatus, new: JobStatus) -> None:
        assert new.attempt >= old.attempt
        assert new.store_epoch >= old.store_epoch
        serials = {(unit.role, unit.index): unit.serial for unit in new.units}
        for unit in old.units:
            assert serials[(unit.role, unit.index)] >= unit.serial, "a number went down"
        for condition in old.conditions:
            if condition.type in ("Complete", "Failed") and condition.status == "True":
                assert condition in new.conditions, "a terminal condition changed"
        if old.stage is Stage.ENDED:
            assert new.stage is Stage.ENDED
            unmoved = replace(new, observed_generation=0, cleanup=old.cleanup)
            assert unmoved == replace(old, observed_generation=0)

    # --- what the test does ---------------------------------------------------------------------------------------

    @property
    def status(self) -> JobStatus:
        """The stored status."""
        return load_status(self.stored)

    def reconcile(self) -> Outcome:
        """One pass of a fresh operator process."""
        reconciler = Reconciler(self, ENVIRONMENT, SETTINGS, lambda: self.now, TELEMETRY)
        return run(reconciler.reconcile(JOB.namespace, JOB.name))

    def passes(self, count: int = 6, *, seconds: float = 1.0) -> None:
        """Passes with the kubelet at work between them."""
        for _ in range(count):
            self.reconcile()
            self.kubelet()
            self.now += seconds

    def started(self) -> "ModelCluster":
        """Everything runs and the first step is trained."""
        self.passes(4)
        self.report = a_report(acked_step=1, samples_committed=16, incarnation="a" * 32, gang="open")
        self.passes(2)
        return self

    def kubelet(self) -> None:
        """Start what is pending, remove what is being deleted."""
        for key, thing in list(self.things.items()):
            if thing.kind != "Pod":
                continue
            if thing.deleted and thing.node != "unreachable":
                del self.things[key]
            elif thing.status.get("phase") == "Pending" and not thing.status.get("stuck"):
                self._run(thing)

    def names_of(self, role: str) -> list[str]:
        """Names of the pods of a role, short (without the stem)."""
        found = [thing for thing in self.things.values() if thing.kind == "Pod" and self._owned(thing)]
        found = [thing for thing in found if thing.manifest["metadata"]["labels"][names.LABEL_ROLE] == role]
        return sorted(thing.manifest["spec"]["hostname"] for thing in found)

    def pod(self, hostname: str) -> Thing:
        """The pod with that short name."""
        return self.things[("Pod", f"{JOB.stem}-{hostname}")]

    def end(self, hostname: str, code: int, *, reason: str = "Error", message: str = "") -> None:
        """The pod's container ended now."""
        ended = {"exitCode": code, "reason": reason, "message": message, "finishedAt": time_of(self.now)}
        self.pod(hostname).status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": "main", "state": {"terminated": ended}}],
        }

    def condition(self, hostname: str, kind: str, status: str, reason: str = "", message: str = "") -> None:
        """Set one pod condition."""
        thing = self.pod(hostname)
        kept = [entry for entry in thing.status.get("conditions", []) if entry["type"] != kind]
        entry = {"type": kind, "status": status, "reason": reason, "message": message}
        thing.status = thing.status | {"conditions": [*kept, entry]}

    def vanish(self, hostname: str) -> None:
        """The pod is gone without a trace."""
        del self.things[("Pod", f"{JOB.stem}-{hostname}")]

    def ask_deletion(self) -> None:
        """Somebody deletes the job: it is gone at once, or as soon as no finalizer holds it."""
        self.deleting = True
        self.version += 1
        self.job_deleted = not self.finalizers

    def delete_claim(self, name: str) -> None:
        """Somebody deleted a claim."""
        del self.things[("PersistentVolumeClaim", name)]

    def verdict(self, kind: str) -> tuple[str, str]:
        """(status, reason) of a condition."""
        found = next(condition for condition in self.status.conditions if condition.type == kind)
        return found.status, found.reason

    def edit(self, **spec: object) -> None:
        """A user changes the spec."""
        self.body = self.body | {"spec": self.body["spec"] | spec}
        self.generation += 1
        self.version += 1

    def _add(self, manifest: Manifest) -> None:
        self._uids += 1
        key = (manifest["kind"], manifest["metadata"]["name"])
        phase = {"Pod": {"phase": "Pending"}, "PersistentVolumeClaim": {"phase": "Bound"}}.get(key[0], {})
        self.things[key] = Thing(
            kind=key[0], manifest=manifest, uid=f"uid-{self._uids}", created=time_of(self.now), status=dict(phase)
        )
        self.ever.add(key[1])

    def _run(self, thing: Thing) -> None:
        thing.node = thing.node or "node-1"
        thing.status = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "main", "ready": True, "state": {"running": {}}}],
        }

    @staticmethod
    def _labelled(thing: Thing) -> bool:
        labels: dict[str, str] = thing.manifest["metadata"].get("labels", {})
        return labels.get(names.LABEL_JOB_UID) == JOB.uid

    @staticmethod
    def _owned(thing: Thing) -> bool:
        owners = thing.manifest["metadata"].get("ownerReferences", [])
        return any(owner["uid"] == JOB.uid for owner in owners)

    @staticmethod
    def _claim(thing: Thing) -> Claim:
        spec = msgspec.convert(thing.manifest.get("spec", {}), ClaimSpec)
        return Claim(metadata=thing.metadata, spec=spec, status=msgspec.convert(thing.status, ClaimStatus))

    @staticmethod
    def _pod(thing: Thing) -> Pod:
        raw = {"spec": {"nodeName": thing.node}, "status": thing.status}
        pod = msgspec.convert(raw | {"metadata": {"name": "", "uid": ""}}, Pod)
        return msgspec.structs.replace(pod, metadata=thing.metadata)
