"""The metadata claim: when it is lost, the next store epoch begins, in the status first and then with a new claim.

A claim is lost when it is gone, being deleted, another object of its name, or when its node did not come back in time.
It is never made twice under one epoch: a fresh, empty claim must be recognisable by everyone as a new epoch.
"""

from dataclasses import replace

from eyas_operator import names
from eyas_operator.api.status import JobStatus, MetadataState, Stage
from eyas_operator.names import Role
from eyas_operator.observe import PodState
from eyas_operator.policies import incidents
from eyas_operator.policies.budget import next_serial
from eyas_operator.policies.failures import WAITING_FOR_IMAGE, Failure, FailureClass
from eyas_operator.policies.moment import Moment, with_unit

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
    return _absence(moment, status)


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
    unit = next((unit for unit in status.units if unit.role is Role.METADATA), None)
    epochs = [claim.store_epoch for claim in moment.observed.claims.values()]
    if unit is not None:
        failure = Failure(klass=FailureClass.METADATA_LOST, message=why)
        status = incidents.opened(moment, status, unit, failure)
        serial = next_serial(moment, unit) if unit.launched else unit.serial
        status = with_unit(status, replace(unit, serial=serial, launched=False, seen=(), not_before_time=""))
    return replace(status, store_epoch=max([status.store_epoch, *epochs]) + 1, metadata=MetadataState())


def checkpoints_claim(moment: Moment, status: JobStatus) -> JobStatus:
    """Record the UID of the checkpoints' claim, so that it is never made a second time."""
    claim = moment.observed.claims.get(names.checkpoints_claim(moment.job))
    if claim is None or status.checkpoints_claim_uid:
        return status
    return replace(status, checkpoints_claim_uid=claim.uid)
