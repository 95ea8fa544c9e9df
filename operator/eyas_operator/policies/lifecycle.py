"""Life-cycle: start, suspend and resume, the end of training, the last sweep, deadlines.

The end has an order: training is complete when the metadata service says so; then producers and consumers go, then the
service sweeps the store, and only when it reports nothing resident does it go too.
"""

from dataclasses import replace

from eyas_contract.states import Gang, Phase
from eyas_contract.wire import StatusReply
from eyas_operator import names
from eyas_operator.api.progress import BestCheckpoint, Result
from eyas_operator.api.rules import immutable_digest
from eyas_operator.api.status import JobStatus, Stage
from eyas_operator.policies.gang import drain_seconds
from eyas_operator.policies.moment import Moment, end, enter, fail, reason_in
from eyas_operator.policies.units import alive_train_pods


def begin(moment: Moment, status: JobStatus) -> JobStatus:
    """First sight of a job: its numbers start above everything that the world still shows of it."""
    if status.stage is not Stage.NEW:
        return status
    status = replace(status, spec_digest=immutable_digest(moment.spec))
    epochs = [claim.store_epoch for claim in moment.observed.claims.values() if claim.owned]
    report = moment.observed.report
    if report is not None:
        epochs.append(report.store_epoch)
    status = replace(status, store_epoch=max([1, status.store_epoch, *epochs]))
    if moment.spec.suspend:
        return enter(moment, status, Stage.SUSPENDED)
    return _started(moment, status)


def _started(moment: Moment, status: JobStatus) -> JobStatus:
    status = enter(moment, status, Stage.RUNNING)
    start_step = status.progress.durable_step
    return replace(status, start_time=moment.time, start_step=start_step, first_step_seen=False, released_time="")


def suspension(moment: Moment, status: JobStatus) -> JobStatus:
    """Suspend: stop consumers and producers (they checkpoint), then the rest. Resume: start with new numbers."""
    if status.stage is Stage.RUNNING and moment.spec.suspend:
        return enter(moment, status, Stage.SUSPENDING)
    if status.stage is Stage.SUSPENDING and not moment.spec.suspend:
        return _started(moment, status)
    if status.stage is Stage.SUSPENDING and _stopped(moment, status):
        return enter(moment, status, Stage.SUSPENDED)
    if status.stage is Stage.SUSPENDED and not moment.spec.suspend:
        return _started(moment, status)
    return status


def _stopped(moment: Moment, status: JobStatus) -> bool:
    return not alive_train_pods(moment) or moment.since(status.stage_time) >= drain_seconds(moment)


def service_verdict(moment: Moment, status: JobStatus) -> JobStatus:
    """What the metadata service says of the whole job: complete, failed, or started over without its checkpoints."""
    report = own_report(moment, status)
    if report is None or status.stage is Stage.ENDED:
        return status
    if report.phase is Phase.FAILED:
        return fail(moment, status, *reason_in(report.failure, "TrainingFailed"))
    if report.phase is Phase.COMPLETE and status.stage in (Stage.RUNNING, Stage.SUSPENDING):
        return enter(moment, replace(status, result=_result(status, report)), Stage.FINISHING)
    restarted = report.gang is Gang.OPEN and report.incarnation and not report.durable_step
    allowed = moment.spec.training.checkpoint.allow_restart_from_zero
    if restarted and status.checkpoint.step and not allowed:
        message = f"training began again at step 0 although step {status.checkpoint.step} was durable"
        return fail(moment, status, "CheckpointsLost", message)
    return status


def own_report(moment: Moment, status: JobStatus) -> StatusReply | None:
    """The report, if it comes from the present store epoch: an older service has nothing to say any more."""
    report = moment.observed.report
    return report if report is not None and report.store_epoch == status.store_epoch else None


def _result(status: JobStatus, report: StatusReply) -> Result:
    return Result(
        steps=report.durable_training_step,
        samples_trained=report.samples_trained,
        samples_evaluated=report.samples_evaluated,
        samples_dead=report.samples_dead,
        checkpoint_directory=report.checkpoint_directory,
        weights_sha256=report.weights_sha256,
        exact=report.exact,
        incidents=len(status.incidents),
        restarts=status.restarts,
        best=None
        if report.best is None
        else BestCheckpoint(
            step=report.best.training_step,
            directory=report.best.directory,
            eval_loss=repr(report.best.eval_loss),
        ),
    )


def finish(moment: Moment, status: JobStatus) -> JobStatus:
    """Wait for the last sweep, then the job is complete."""
    if status.stage is not Stage.FINISHING or not _stopped(moment, status):
        return status
    report = own_report(moment, status)
    swept = report is not None and report.resident_objects == 0 and report.live_leases == 0
    patience = drain_seconds(moment) + moment.spec.recovery.sweep_seconds
    if not swept and moment.since(status.stage_time) < patience:
        return status
    steps = status.result.steps if status.result is not None else 0
    if swept:
        return end(moment, status, "Complete", "TrainingComplete", f"{steps} steps are trained; the store is empty")
    message = f"{steps} steps are trained; the store could not be swept in {patience:.0f} seconds"
    return end(moment, status, "Complete", "SweepIncomplete", message)


def claims_kept(moment: Moment, status: JobStatus) -> JobStatus:
    """A claim of checkpoints that vanished is not made again: that would look like a job that never trained."""
    if status.stage in (Stage.NEW, Stage.ENDED) or not status.checkpoints_claim_uid:
        return status
    claim = moment.observed.claims.get(names.checkpoints_claim(moment.job))
    if claim is not None and claim.uid == status.checkpoints_claim_uid:
        return status
    return fail(moment, status, "CheckpointsLost", "the claim with the checkpoints is gone")


def deadlines(moment: Moment, status: JobStatus) -> JobStatus:
    """End a job that took too long to start, or to run."""
    if status.stage is not Stage.RUNNING:
        return status
    report = own_report(moment, status)
    if not status.first_step_seen and report is not None and report.acked_step > status.start_step:
        status = replace(status, first_step_seen=True)
    running = moment.since(status.start_time)
    active = moment.spec.active_deadline_seconds
    if active is not None and running >= active:
        return fail(moment, status, "DeadlineExceeded", f"the job ran for {active} seconds")
    if not status.first_step_seen and running >= moment.spec.startup_deadline_seconds:
        waiting = sorted({f"{view.name}: {view.waiting}" for view in moment.observed.pods.values() if view.waiting})
        detail = f"; waiting: {'; '.join(waiting[:5])}" if waiting else ""
        seconds = moment.spec.startup_deadline_seconds
        return fail(moment, status, "StartupDeadlineExceeded", f"no step in {seconds} seconds{detail}")
    return status


def expired(moment: Moment, status: JobStatus) -> bool:
    """The time to live after the end is over."""
    ttl = moment.spec.ttl_seconds_after_finished
    return status.stage is Stage.ENDED and ttl is not None and moment.since(status.completion_time) >= ttl
