"""Actions: the difference between what should be and what is, in the order in which it is safe to remove it.

Pure. Deletes name UIDs of objects that were seen to be ours; a pod is created only under a serial that the status
already holds. Order: secrets, services and policies, configuration, claims, deletes, pods, garbage, and what somebody
edited: the cluster may refuse to have it back, and nothing may wait for that.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from eyas_operator import edits, names
from eyas_operator.api.status import JobStatus, Stage
from eyas_operator.cluster import ObjectRef, SecretShape
from eyas_operator.desired import Build, Desired, desired, pod_grace_seconds
from eyas_operator.names import PodIdentity, Role
from eyas_operator.observe import PodView
from eyas_operator.policies.cleanup import sweeper
from eyas_operator.policies.moment import Moment, members
from eyas_operator.world import Manifest

QUICK_SECONDS: Final = 1
"""Grace for a pod that is already replaced: everything survives a kill, only time is lost by waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureSecret:
    """Create a Secret once, or apply its derived values."""

    shape: SecretShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Make an object look so."""

    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Create an object that must not exist yet."""

    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Begin to delete exactly this object."""

    target: ObjectRef
    grace_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteJob:
    """Delete the custom resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFinalizer:
    """Put our finalizer on the job, or take it away."""

    present: bool


Action = EnsureSecret | Apply | Create | Delete | DeleteJob | SetFinalizer


def actions(moment: Moment, status: JobStatus, build: Build) -> tuple[Action, ...]:
    """Everything to do, given a status that is already written. Raises `UserError` for paths on no volume."""
    if status.stage is Stage.ENDED:
        return ended(moment)
    if status.stage in (Stage.NEW, Stage.SUSPENDED) and not moment.observed.pods:
        return ()
    pods = wanted_pods(status)
    present = {view.name for view in moment.observed.pods.values()}
    target = desired(build, [identity for identity in pods if identity.pod_name(moment.job) not in present])
    creates = [Create(manifest=pod) for pod in target.pods]
    claims = _claim_creates(moment, status, target)
    made: list[Action] = []
    if creates or claims:
        made += [EnsureSecret(shape=shape) for shape in target.secrets]
    elif moment.observed.reader_stale:
        # A key was rotated, or made anew, since the last pod was made: else nobody could read this job any more.
        made += [EnsureSecret(shape=shape) for shape in target.secrets if shape.derived]
    made += _applies(moment, target)
    if pods and ("ConfigMap", build.config_name) not in moment.observed.others:
        made.append(Create(manifest=target.config))
    deletes = _pod_deletes(moment, status, build, pods)
    put_back = (Apply(manifest=manifest) for manifest in edits.edited(moment.observed.others, target, moment.now))
    return (*made, *claims, *deletes, *creates, *_garbage(moment, build, target), *put_back)


def wanted_pods(status: JobStatus) -> tuple[PodIdentity, ...]:
    """The pods that should exist: those of units that are awake and launched."""
    return tuple(
        identity for unit in status.units if unit.launched and not unit.idle for identity in members(status, unit)
    )


def _applies(moment: Moment, target: Desired) -> list[Apply]:
    found: list[Apply] = []
    for manifest in target.applied:
        meta = manifest["metadata"]
        view = moment.observed.others.get((manifest["kind"], meta["name"]))
        if view is None or view.digest != meta["annotations"][names.ANNOTATION_DIGEST]:
            found.append(Apply(manifest=manifest))
    return found


def _claim_creates(moment: Moment, status: JobStatus, target: Desired) -> list[Action]:
    """Claims that are missing and were never seen: one that was seen and is gone is not silently made again."""
    known = {
        names.metadata_claim(moment.job, status.store_epoch): status.metadata.claim_uid,
        names.checkpoints_claim(moment.job): status.checkpoints_claim_uid,
    }
    return [
        Create(manifest=claim)
        for claim in target.claims
        if claim["metadata"]["name"] not in moment.observed.claims and not known.get(claim["metadata"]["name"])
    ]


def _pod_deletes(moment: Moment, status: JobStatus, build: Build, wanted: Iterable[PodIdentity]) -> list[Action]:
    keep = set(wanted)
    present = {(unit.role, unit.index): unit.serial for unit in status.units}
    found: list[Action] = []
    for identity, view in moment.observed.pods.items():
        if identity in keep or view.deleting:
            continue
        index = 0 if identity.role is Role.CONSUMER else identity.index
        current = present.get((identity.role, index)) == identity.serial
        # A pod of the present serial is asked to stop (drain, resize, suspend); an older one is already replaced.
        # Store nodes are only asked all together: none is left that could take the objects of another.
        asked = current and view.alive and identity.role is not Role.STORE_NODE
        grace = pod_grace_seconds(build, identity) if asked else QUICK_SECONDS
        found.append(_delete_pod(view, grace))
    found += [_delete_pod(view, QUICK_SECONDS) for view in moment.observed.strange_pods if not view.deleting]
    return found


def _delete_pod(view: PodView, grace_seconds: int) -> Delete:
    return Delete(target=ObjectRef(kind="Pod", name=view.name, uid=view.uid), grace_seconds=grace_seconds)


def _garbage(moment: Moment, build: Build, target: Desired) -> list[Action]:
    """Superseded objects of ours: old configurations nobody mounts, old metadata claims, budgets of smaller roles."""
    keep = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in target.applied}
    keep |= {("ConfigMap", view.config) for view in moment.observed.pods.values()}
    keep.add(("ConfigMap", build.config_name))
    found: list[Action] = [
        Delete(target=ObjectRef(kind=kind, name=name, uid=view.uid), grace_seconds=0)
        for (kind, name), view in sorted(moment.observed.others.items())
        if (kind, name) not in keep and not view.deleting
    ]
    found += [
        Delete(target=ObjectRef(kind="PersistentVolumeClaim", name=name, uid=view.uid), grace_seconds=0)
        for name, view in sorted(moment.observed.claims.items())
        if view.owned
        and view.usable
        and 0 < view.store_epoch < build.status.store_epoch
        # A damaged database is evidence, and what it still holds may be wanted.
        and view.store_epoch not in build.status.metadata.damaged_epochs
    ]
    return found


def ended(moment: Moment, *, kept: PodIdentity | None = None) -> tuple[Action, ...]:
    """After the end: no pod is left but `kept`, and no claim whose content was only a cache."""
    pods = moment.observed.pods
    views = [*(pods[identity] for identity in pods if identity != kept), *moment.observed.strange_pods]
    found: list[Action] = [_delete_pod(view, QUICK_SECONDS) for view in views if not view.deleting]
    cache = moment.observed.claims.get(names.store_claim(moment.job))
    if cache is not None and cache.owned and cache.usable and not views:
        target = ObjectRef(kind="PersistentVolumeClaim", name=names.store_claim(moment.job), uid=cache.uid)
        found.append(Delete(target=target, grace_seconds=0))
    budgets = [item for item in sorted(moment.observed.others.items()) if item[0][0] == "PodDisruptionBudget"]
    found += [
        Delete(target=ObjectRef(kind=kind, name=name, uid=view.uid), grace_seconds=0)
        for (kind, name), view in budgets
        if not view.deleting
    ]
    return tuple(found)


def swept(moment: Moment, before: JobStatus, status: JobStatus, build: Build) -> tuple[Action, ...]:
    """What a cleanup asks for: no pod but the sweeper, which is made under a number that `before` did not have yet.

    The finalizer goes last, and the job with it.
    """
    present = sweeper(status.cleanup)
    if status.cleanup.outcome:
        return (*ended(moment), SetFinalizer(present=False))
    if status.cleanup.serial == before.cleanup.serial:
        return ended(moment, kept=present)
    target = desired(build, [present])
    made: list[Action] = [EnsureSecret(shape=shape) for shape in target.secrets]
    policy = names.policy(moment.job, Role.SWEEPER.value)
    made += [action for action in _applies(moment, target) if action.manifest["metadata"]["name"] == policy]
    if ("ConfigMap", build.config_name) not in moment.observed.others:
        made.append(Create(manifest=target.config))
    return (*made, *ended(moment, kept=present), *(Create(manifest=pod) for pod in target.pods))
