"""What is there: the typed part of Kubernetes objects that the operator looks at, as a backend lists it.

Pure values. The Kubernetes backend decodes API answers straight into these structs (unknown fields are skipped, which
costs a fraction of a full decoding); the local backend builds them from processes and folders. Times are RFC 3339.
"""

from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import msgspec

from eyas_contract.wire import StatusReply
from eyas_operator.names import JobIdentity

Manifest: TypeAlias = dict[str, Any]
"""One Kubernetes object as JSON."""
Time: TypeAlias = str | None
"""RFC 3339; empty or None (the API server says `null`) for a time that is not set."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base: camelCase names, unknown fields ignored."""


class OwnerReference(_Part, frozen=True, kw_only=True):
    """Who owns an object."""

    uid: str
    controller: bool = False


class Metadata(_Part, frozen=True, kw_only=True):
    """The part of `metadata` that decides."""

    name: str
    uid: str
    namespace: str = ""
    resource_version: str = ""
    """Of the object as it was seen; empty locally."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    creation_timestamp: Time = ""
    deletion_timestamp: Time = ""
    """Non-empty: the object is being deleted."""


class Terminated(_Part, frozen=True, kw_only=True):
    """How a container ended."""

    exit_code: int
    signal: int = 0
    reason: str = ""
    """`OOMKilled`, `Error`, `Completed`, ..."""
    message: str = ""
    """The termination message: one JSON line (`eyas_contract.wire.Termination`) if a supervisor wrote it."""
    finished_at: Time = ""


class Waiting(_Part, frozen=True, kw_only=True):
    """Why a container has not started."""

    reason: str = ""
    message: str = ""


class Running(_Part, frozen=True, kw_only=True):
    """A running container."""

    started_at: Time = ""


class ContainerState(_Part, frozen=True, kw_only=True):
    """At most one of the three is set."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Part, frozen=True, kw_only=True):
    """State of the pod's only container."""

    name: str
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodCondition(_Part, frozen=True, kw_only=True):
    """`PodScheduled`, `Ready`, `DisruptionTarget`, ..."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: Time = ""


class PodStatus(_Part, frozen=True, kw_only=True):
    """Observed state of a pod."""

    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"] = "Pending"
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    """Its address; empty until it has one, and locally."""
    conditions: tuple[PodCondition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class PodSpec(_Part, frozen=True, kw_only=True):
    """Where a pod runs."""

    node_name: str = ""


class Pod(_Part, frozen=True, kw_only=True):
    """One pod. `status.conditions` type `Ready` with status `True` means that its role can make progress."""

    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class ClaimStatus(_Part, frozen=True, kw_only=True):
    """State of a persistent volume claim."""

    phase: Literal["Pending", "Bound", "Lost"] = "Pending"


class ClaimSpec(_Part, frozen=True, kw_only=True):
    """What a claim asked for."""

    access_modes: tuple[str, ...] = ()
    """Empty locally: a folder is shared by nature."""


class Claim(_Part, frozen=True, kw_only=True):
    """One persistent volume claim (locally: a folder)."""

    metadata: Metadata
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


class Child(_Part, frozen=True, kw_only=True):
    """A Service, ConfigMap, NetworkPolicy or PodDisruptionBudget: only what it is and what it was made from."""

    kind: str
    metadata: Metadata
    fields: bytes | None = None
    """The fields that are as we last applied them (`FieldsV1`); None where nobody keeps account of that."""
    applied_time: Time = ""
    """When applying it last changed something."""


class Children(_Part, frozen=True, kw_only=True):
    """Everything that carries the job's UID label, listed authoritatively."""

    pods: tuple[Pod, ...] = ()
    claims: tuple[Claim, ...] = ()
    others: tuple[Child, ...] = ()


class JobRecord(_Part, frozen=True, kw_only=True):
    """The custom resource as read: identity, versions, the whole body, and its status as JSON."""

    identity: JobIdentity
    generation: int
    resource_version: str
    body: Manifest
    status: Manifest = {}
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    """What must be done before the job may go, each by whoever put it there."""


class World(_Part, frozen=True, kw_only=True):
    """What one pass decides from."""

    children: Children
    report: StatusReply | None = None
    """The metadata service's own words; None while it cannot be reached."""
    refusal: str = ""
    """What the cluster said when it last refused something of this job; empty once it took everything."""
    reader_stale: bool = False
    """The service has not learnt the present read token."""
    named_claim: Claim | None = None
    """That `spec.volumes.checkpoints.claimName` names; None: it was not looked at, or is not there."""


def metadata_alone(manifest: Manifest) -> Manifest:
    """`manifest` without what is not metadata: applied, it changes nothing else of the object."""
    return {key: manifest[key] for key in ("apiVersion", "kind", "metadata")}


def seconds_of(time: Time) -> float:
    """Unix seconds of an RFC 3339 time; 0.0 for one that is not set. Raises `ValueError` for anything else."""
    return datetime.fromisoformat(time).timestamp() if time else 0.0


def time_of(seconds: float) -> str:
    """RFC 3339 time in UTC with milliseconds; inverse of `seconds_of` to a millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
