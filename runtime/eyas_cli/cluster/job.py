"""One job as a user of the cluster can see it: the custom resource, and its pods by role and index."""

from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import ValidationError

from eyas_cli.cluster.access import Access
from eyas_contract.errors import Corrupt, UserError
from eyas_operator import names
from eyas_operator.api.status import JobStatus, first_reason, load_status
from eyas_operator.backends.kubernetes.errors import Missing
from eyas_operator.backends.kubernetes.listing import job_record
from eyas_operator.backends.kubernetes.resources import JOBS, PODS
from eyas_operator.names import JobIdentity, PodIdentity, Role
from eyas_operator.world import JobRecord, Pod


class _Pods(msgspec.Struct):
    items: tuple[Pod, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPod:
    """A pod and what it is."""

    identity: PodIdentity
    pod: Pod

    @property
    def name(self) -> str:
        """Its name in the namespace."""
        return self.pod.metadata.name

    @property
    def unit(self) -> str:
        """`producer-1`, `metadata`: what people call it."""
        single = self.identity.role in (Role.METADATA, Role.STORE_MASTER, Role.SWEEPER)
        return self.identity.role.value if single else f"{self.identity.role.value}-{self.identity.index}"

    @property
    def ready(self) -> bool:
        """It says that it can make progress."""
        return any(it.type == "Ready" and it.status == "True" for it in self.pod.status.conditions)

    @property
    def waiting(self) -> str:
        """Why it does not run yet; empty for one that does, or did."""
        for container in self.pod.status.container_statuses:
            if container.state.waiting is not None:
                return f"{container.state.waiting.reason} {container.state.waiting.message}".strip()
        unscheduled = [it for it in self.pod.status.conditions if it.type == "PodScheduled" and it.status == "False"]
        return f"{unscheduled[0].reason} {unscheduled[0].message}".strip() if unscheduled else ""

    @property
    def state(self) -> str:
        """One word."""
        if self.pod.metadata.deletion_timestamp:
            return "Terminating"
        if self.pod.status.phase == "Pending" and self.waiting:
            return self.waiting.split()[0]
        if self.pod.status.phase != "Running":
            return self.pod.status.phase
        return "Ready" if self.ready else "Running"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJob:
    """One job at one moment."""

    record: JobRecord
    status: JobStatus
    pods: tuple[JobPod, ...]

    @property
    def identity(self) -> JobIdentity:
        """Which job."""
        return self.record.identity

    def of(self, unit: str, attempt: int | None = None) -> tuple[JobPod, ...]:
        """Pods of a role (`consumer`) or one unit (`consumer-0`), all of them for an empty word.

        Raises `UserError`, naming the units that there are, when there is none.
        """
        chosen = [
            entry
            for entry in self.pods
            if unit in ("", entry.unit, entry.identity.role.value)
            and (attempt is None or entry.identity.role is not Role.CONSUMER or entry.identity.serial == attempt)
        ]
        if not chosen:
            known = ", ".join(sorted({entry.unit for entry in self.pods})) or "none"
            raise UserError(f"{self.identity.name} has no pod {unit}; there are: {known}")
        return tuple(chosen)


async def read_job(access: Access, name: str) -> ClusterJob:
    """The job and its pods, newest serial last. Raises `UserError` when there is no such job."""
    body = await read_body(access, name)
    record = job_record(body)
    try:
        status = load_status(record.status)
    except ValidationError as error:
        raise Corrupt(f"the status of {name} is damaged: {first_reason(error)}") from error
    query = {"labelSelector": f"{names.LABEL_JOB_UID}={record.identity.uid}"}
    raw = await access.client.get(PODS.collection(access.namespace), query=query)
    found = [
        JobPod(identity=identity, pod=pod)
        for pod in msgspec.json.decode(raw, type=_Pods).items
        if (identity := names.pod_identity(pod.metadata.labels)) is not None
    ]
    order = list(Role)
    found.sort(key=lambda it: (order.index(it.identity.role), it.identity.index, it.identity.serial))
    return ClusterJob(record=record, status=status, pods=tuple(found))


async def read_body(access: Access, name: str) -> dict[str, Any]:
    """The custom resource as the API server gives it. Raises `UserError` when there is no such job."""
    try:
        raw = await access.client.get(JOBS.item(access.namespace, name))
    except Missing as error:
        raise UserError(
            f"there is no job {name} in namespace {access.namespace}, or no DisaggTrainingJob in this cluster at all: "
            "kubectl get dtj -A, kubectl eyas doctor"
        ) from error
    body: dict[str, Any] = msgspec.json.decode(raw)
    return body
