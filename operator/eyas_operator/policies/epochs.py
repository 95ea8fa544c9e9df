"""The metadata claim: when it is lost, the next store epoch begins, in the status first and then with a new claim.

A claim is lost when it is gone, being deleted, another object of its name, or when its node did not come back in time.
A database that its service found damaged is as good as lost, but its claim stays: nothing that was written is deleted.
It is never made twice under one epoch: a fresh, empty claim must be recognisable by everyone as a new epoch.
"""

from dataclasses import replace

from eyas_operator import names
from eyas_operator.api.incidents import INCIDENT_MESSAGE_CHARACTERS_MAX
from eyas_operator.api.status import JobStatus, MetadataState, Stage, Unit
from eyas_operator.names import Role
from eyas_operator.observe import PodState
from eyas_operator.policies import incidents
from eyas_operator.policies.budget import next_serial, restart
from eyas_operator.policies.failures import WAITING_FOR_IMAGE, Failure, FailureClass
from eyas_operator.policies.moment import Moment, fail, members, with_unit

DAMAGED_MAX = 16
"""Damaged databases of one job that are kept; with one more its volumes are not to be trusted."""
_STAGES = (Stage.RUNNING, Stage.SUSPENDING, Stage.FINISHING)


def metadata_claim(moment: Moment, status: JobStatus) -> JobStatus:
    """Record the claim's UID when it is first seen; begin the next epoch when it is lost."""
    if status.stage not in _STAGES:
        return status
    claim = moment.observed.claims.get(names.metadata_claim(moment.job, status.store_epoch))
    known = status.metadata.claim_uid
    if claim is None:
        return _next_epoch(moment, status, "the metadata claim is gone") if known else status
    if not claim.usable or not claim.owned:
        return _next_epoch(moment, status, "the metadata claim is lost or being deleted")
    if known and claim.uid != known:
        return _next_epoch(moment, status, "the metadata claim was replaced by another one")
    status = replace(status, metadata=replace(status.metadata, claim_uid=claim.uid))
    damage = _damage(moment, status)
    return _absence(moment, status) if damage is None else _beyond_damage(moment, status, *damage)


def _damage(moment: Moment, status: JobStatus) -> tuple[Unit, Failure] | None:
    """The end of the present metadata pod, if it was damage. A pod of an older epoch has told its own already."""
    unit = _unit(status)
    view = moment.observed.pods.get(members(status, unit)[0]) if unit is not None else None
    if unit is None or view is None or view.failure is None:
        return None
    return (unit, view.failure) if view.failure.klass is FailureClass.METADATA_DAMAGED else None


def _beyond_damage(moment: Moment, status: JobStatus, unit: Unit, failure: Failure) -> JobStatus:
    """The next epoch, uncounted but paced as any restart; the job fails when its volumes are damaged again and again.

    Each damaged claim is kept, so there is a bound to them.
    """
    kept = (*status.metadata.damaged_epochs, status.store_epoch)
    epoch = _following(moment, status)
    done = (
        f"; it stays where it is, in claim {names.metadata_claim(moment.job, status.store_epoch)}; store epoch {epoch} "
        "begins with an empty database, and the job goes on from its newest checkpoint"
    )
    cause = failure.message[: INCIDENT_MESSAGE_CHARACTERS_MAX - len(done)]
    status = incidents.opened(moment, status, unit, replace(failure, message=cause + done))
    if len(kept) > DAMAGED_MAX:
        return fail(moment, status, "MetadataDamaged", f"{len(kept)} metadata databases were damaged; last: {cause}")
    status = restart(moment, status, unit, failure)
    return replace(status, store_epoch=epoch, metadata=MetadataState(damaged_epochs=kept))


def _unit(status: JobStatus) -> Unit | None:
    return next((unit for unit in status.units if unit.role is Role.METADATA), None)


def _following(moment: Moment, status: JobStatus) -> int:
    """An epoch that no claim ever had."""
    return max([status.store_epoch, *(claim.store_epoch for claim in moment.observed.claims.values())]) + 1


def _absence(moment: Moment, status: JobStatus) -> JobStatus:
    """Count the time in which no metadata pod of this epoch runs although its service once answered."""
    state = status.metadata
    report = moment.observed.report
    if report is not None and report.store_epoch == status.store_epoch and not state.ready:
        state = replace(state, ready=True)
    pods = [
        view
        for identity, view in moment.observed.pods.items()
        if identity.role is Role.METADATA and identity.store_epoch == status.store_epoch
    ]
    started = (PodState.RUNNING, PodState.READY)
    runs = any(view.state in started and not view.deleting for view in pods)
    pulls = any(view.waiting.split(" ")[0] in WAITING_FOR_IMAGE for view in pods)
    if runs or pulls or not state.ready:
        return replace(status, metadata=replace(state, absent_time=""))
    if not state.absent_time:
        return replace(status, metadata=replace(state, absent_time=moment.time))
    status = replace(status, metadata=state)
    if moment.since(state.absent_time) < moment.spec.recovery.metadata_loss_seconds:
        return status
    return _next_epoch(moment, status, "the node of the metadata claim did not come back")


def _next_epoch(moment: Moment, status: JobStatus, why: str) -> JobStatus:
    unit = _unit(status)
    if unit is not None:
        failure = Failure(klass=FailureClass.METADATA_LOST, message=why)
        status = incidents.opened(moment, status, unit, failure)
        serial = next_serial(moment, unit) if unit.launched else unit.serial
        status = with_unit(status, replace(unit, serial=serial, launched=False, seen=(), not_before_time=""))
    fresh = MetadataState(damaged_epochs=status.metadata.damaged_epochs)
    return replace(status, store_epoch=_following(moment, status), metadata=fresh)


def checkpoints_claim(moment: Moment, status: JobStatus) -> JobStatus:
    """Record the UID of the checkpoints' claim, so that it is never made a second time."""
    claim = moment.observed.claims.get(names.checkpoints_claim(moment.job))
    if claim is None or status.checkpoints_claim_uid:
        return status
    return replace(status, checkpoints_claim_uid=claim.uid)
