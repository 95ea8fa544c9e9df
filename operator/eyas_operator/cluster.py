"""Port `Cluster`: every effect that the operator has on the world, and every fact it learns from it.

Two adapters implement it: the Kubernetes API and a local machine. All calls are idempotent, so that a pass which died
anywhere is simply made again. Errors: `Conflict` (read again and decide again), `Transient` (the other side is away),
`Refused` (only people can help), `Fenced` (another operator took over). Methods are bounded in time by their adapter;
none blocks the event loop.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from eyas_contract.wire import StatusReply
from eyas_operator.names import JobIdentity
from eyas_operator.world import Children, Claim, JobRecord, Manifest, Pod


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """One existing object; the UID is a precondition of every delete."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretShape:
    """A Secret whose values the core never sees."""

    manifest: Manifest
    """The Secret without data: name, labels, owner."""
    minted: tuple[str, ...] = ()
    """Keys that get 32 random bytes in hexadecimal when the Secret is created, and are never written again."""
    derived: tuple[str, ...] = ()
    """Keys whose value derives from the operator's own key and the job's UID; applied, hence equal at every pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something to tell people, posted on the job once the status that it speaks of is written."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Glimpse:
    """A job and its children as they were last seen, without asking anybody now."""

    record: JobRecord
    children: Children


class Cluster(Protocol):
    """The world of one operator."""

    def glance(self, namespace: str, name: str) -> Glimpse | None:
        """What is known without a call, which may be old: enough to see that nothing is to be done.

        None: too little is known, or looking costs nothing. Nothing may be decided from a glimpse but to wait, and to
        write how far the job is.
        """
        ...

    async def read_job(self, namespace: str, name: str) -> JobRecord | None:
        """The custom resource, or None when there is none."""
        ...

    async def list_children(self, job: JobIdentity) -> Children:
        """All children with the job's UID label, as they are now (never from a cache that may be stale)."""
        ...

    async def read_claim(self, namespace: str, name: str) -> Claim | None:
        """A claim that a spec names and somebody else made; None when there is none, or any will do."""
        ...

    async def read_report(self, job: JobIdentity, pod: Pod) -> StatusReply | None:
        """`/v1/status` of the metadata service in `pod`; None when it does not answer within about two seconds.

        Nor is one asked again at once that has just let a call time out: one dead node must not slow down every pass.
        """
        ...

    def reader_is_stale(self, job: JobIdentity) -> bool:
        """Whether the service has not learnt the present read token, as of `read_report`; False once it was written.

        The Secret with that token then has to be applied, which is else done only before a pod is made.
        """
        ...

    async def create(self, manifest: Manifest) -> None:
        """Create a Pod, PersistentVolumeClaim or immutable ConfigMap.

        An object of that name with this job's UID label and the same owner is success: it was made before. Raises
        `Refused` if the name belongs to somebody else, or if the cluster does not take it.
        """
        ...

    async def apply(self, manifest: Manifest) -> None:
        """Make a Service, NetworkPolicy, PodDisruptionBudget, or a ConfigMap's metadata look like `manifest`.

        Fields that it does not name stay as they are (server-side apply).

        Raises `Refused` if the name belongs to somebody else, or if the cluster does not take it.
        """
        ...

    async def ensure_secret(self, shape: SecretShape) -> None:
        """Create the minted keys once, keeping an existing Secret as it is; apply the derived ones."""
        ...

    async def delete(self, job: JobIdentity, target: ObjectRef, *, grace_seconds: int) -> None:
        """Begin to delete `target`, a child of `job`; one that is gone or has another UID is left alone.

        Does not wait for the end.
        """
        ...

    async def write_status(self, job: JobRecord, status: Manifest) -> JobRecord:
        """Replace the job's status and return the record as it is now.

        Raises `Conflict` when the job's resource version is no longer `job.resource_version`: nothing was written.
        """
        ...

    async def set_finalizer(self, job: JobRecord, *, present: bool) -> None:
        """Put our finalizer on the job, or take it away; those of others stay.

        Raises `Conflict` when the job's resource version is no longer `job.resource_version`: nothing was written.
        """
        ...

    async def delete_job(self, job: JobIdentity) -> None:
        """Delete the custom resource (its time to live after the end is over)."""
        ...

    async def post_events(self, job: JobIdentity, events: tuple[Event, ...]) -> None:
        """Tell people, within about two seconds; failure to do so never fails a pass."""
        ...
