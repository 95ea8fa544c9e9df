"""From what a backend lists to what the plan decides from: our pods by identity, our claims, the service's report.

Pure. Only objects whose controller is this job's UID are ours (a claim that outlives jobs is recognised by its label
and is never deleted). A report of another job or store epoch is no report: it comes from a holder that was replaced.
"""

from dataclasses import dataclass
from enum import StrEnum

from eyas_contract.wire import StatusReply
from eyas_operator import names
from eyas_operator.names import JobIdentity, PodIdentity, Role
from eyas_operator.policies.failures import Failure, FailureClass, classify, condition, node_lost, terminated_of
from eyas_operator.world import Children, Claim, Metadata, Pod, Time, World


class PodState(StrEnum):
    """How far a pod is."""

    WAITING = "Waiting"
    RUNNING = "Running"
    READY = "Ready"
    ENDED = "Ended"
    LOST = "Lost"
    """Its node is gone; nobody can say whether it still runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """One pod of ours."""

    name: str
    uid: str
    node: str
    state: PodState
    deleting: bool
    created_time: str
    """When the cluster took it."""
    config: str
    """ConfigMap it was made with."""
    template: str = ""
    """Digest of what the spec said of its role; empty for roles that the spec says nothing of."""
    waiting: str = ""
    """Why it does not run yet."""
    failure: Failure | None = None
    """Set when it ended, is lost, or is being deleted."""

    @property
    def alive(self) -> bool:
        """Its processes may still be doing something."""
        return self.state not in (PodState.ENDED, PodState.LOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimView:
    """One claim of this job."""

    uid: str
    owned: bool
    usable: bool
    """Neither lost nor being deleted."""
    store_epoch: int
    """Of a metadata claim; 0 for others."""
    access_modes: tuple[str, ...] = ()

    @property
    def shared(self) -> bool:
        """Pods on several nodes may mount it. Without modes it is a folder."""
        return not self.access_modes or "ReadWriteMany" in self.access_modes


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherView:
    """One owned Service, ConfigMap, NetworkPolicy or PodDisruptionBudget."""

    uid: str
    digest: str
    deleting: bool
    labels: dict[str, str]
    fields: bytes | None = None
    """As `Child.fields`."""
    applied_time: Time = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The world, folded."""

    pods: dict[PodIdentity, PodView]
    strange_pods: tuple[PodView, ...]
    """Ours by owner, but with labels that we did not write: to be deleted."""
    claims: dict[str, ClaimView]
    others: dict[tuple[str, str], OtherView]
    """By (kind, name)."""
    report: StatusReply | None
    named_claim: ClaimView | None = None
    """That `spec.volumes.checkpoints.claimName` names; None: it was not looked at, or is not there."""
    refusal: str = ""
    """What the cluster last refused of this job."""
    reader_stale: bool = False
    """The service has not learnt the present read token."""

    def of_role(self, *roles: Role) -> list[PodView]:
        """All pods of these roles, whatever their serial."""
        return [view for identity, view in self.pods.items() if identity.role in roles]

    def highest_serial(self, role: Role, index: int | None) -> int:
        """Highest serial of any pod of that role (and index); 0 without one."""
        serials = [
            identity.serial
            for identity in self.pods
            if identity.role is role and (index is None or identity.index == index)
        ]
        return max(serials, default=0)


def observe(job: JobIdentity, world: World) -> Observed:
    """Fold `world`; foreign objects disappear here."""
    pods: dict[PodIdentity, PodView] = {}
    strange: list[PodView] = []
    for pod in world.children.pods:
        if not owned_by(job, pod.metadata):
            continue
        identity = names.pod_identity(pod.metadata.labels)
        if identity is None or identity.pod_name(job) != pod.metadata.name:
            strange.append(_pod_view(pod))
        else:
            pods[identity] = _pod_view(pod)
    claims = {
        claim.metadata.name: _claim_view(job, claim)
        for claim in world.children.claims
        if claim.metadata.labels.get(names.LABEL_JOB_UID) == job.uid
    }
    others = {
        (child.kind, child.metadata.name): OtherView(
            uid=child.metadata.uid,
            digest=child.metadata.annotations.get(names.ANNOTATION_DIGEST, ""),
            deleting=bool(child.metadata.deletion_timestamp),
            labels=child.metadata.labels,
            fields=child.fields,
            applied_time=child.applied_time,
        )
        for child in world.children.others
        if owned_by(job, child.metadata)
    }
    report = world.report if world.report is not None and world.report.job_uid == job.job_uid else None
    return Observed(
        pods=pods,
        strange_pods=tuple(strange),
        claims=claims,
        others=others,
        report=report,
        named_claim=_claim_view(job, world.named_claim) if world.named_claim is not None else None,
        refusal=world.refusal,
        reader_stale=world.reader_stale,
    )


def metadata_pod(job: JobIdentity, children: Children) -> Pod | None:
    """The pod of the newest store epoch and number that holds the metadata service; a predecessor is never asked."""
    found = [
        (identity.store_epoch, identity.serial, pod)
        for pod in children.pods
        if owned_by(job, pod.metadata) and (identity := names.pod_identity(pod.metadata.labels)) is not None
        if identity.role is Role.METADATA
    ]
    return max(found, key=lambda entry: entry[:2])[2] if found else None


def owned_by(job: JobIdentity, meta: Metadata) -> bool:
    """The object's controller is this very job, not one of the same name."""
    return any(owner.controller and owner.uid == job.uid for owner in meta.owner_references)


def _claim_view(job: JobIdentity, claim: Claim) -> ClaimView:
    return ClaimView(
        uid=claim.metadata.uid,
        owned=owned_by(job, claim.metadata),
        usable=claim.status.phase != "Lost" and not claim.metadata.deletion_timestamp,
        store_epoch=_store_epoch(claim.metadata),
        access_modes=claim.spec.access_modes,
    )


def _store_epoch(meta: Metadata) -> int:
    label = meta.labels.get(names.LABEL_STORE_EPOCH, "0")
    return int(label) if label.isdecimal() else 0


def _pod_view(pod: Pod) -> PodView:
    state = _state(pod)
    deleting = bool(pod.metadata.deletion_timestamp)
    failed = deleting or state in (PodState.ENDED, PodState.LOST)
    return PodView(
        name=pod.metadata.name,
        uid=pod.metadata.uid,
        node=pod.spec.node_name,
        state=state,
        deleting=deleting,
        created_time=pod.metadata.creation_timestamp or "",
        config=pod.metadata.annotations.get(names.ANNOTATION_CONFIG, ""),
        template=pod.metadata.annotations.get(names.ANNOTATION_TEMPLATE, ""),
        waiting=_waiting(pod) if state is PodState.WAITING else "",
        failure=_failure(pod, state) if failed else None,
    )


def _failure(pod: Pod, state: PodState) -> Failure:
    failure = classify(pod)
    if state in (PodState.ENDED, PodState.LOST) or failure.klass in (FailureClass.DISRUPTED, FailureClass.NODE_LOST):
        return failure
    return Failure(klass=FailureClass.POD_DELETED, message="somebody deleted the pod", node=pod.spec.node_name)


def _state(pod: Pod) -> PodState:
    if terminated_of(pod) is not None or pod.status.phase in ("Succeeded", "Failed"):
        return PodState.ENDED
    if node_lost(pod):
        return PodState.LOST
    ready = condition(pod, "Ready")
    if ready is not None and ready.status == "True":
        return PodState.READY
    started = any(status.state.running is not None for status in pod.status.container_statuses)
    return PodState.RUNNING if started else PodState.WAITING


def _waiting(pod: Pod) -> str:
    for status in pod.status.container_statuses:
        if status.state.waiting is not None and status.state.waiting.reason:
            return f"{status.state.waiting.reason} {status.state.waiting.message}".strip()[:256]
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and scheduled.status != "True":
        return f"{scheduled.reason} {scheduled.message}".strip()[:256]
    return "starting"
