"""The numbers in a job's status in the words of its metadata service, for a user who may not ask the service. Pure.

What the status does not say is zero or empty, which the screen leaves out. With evaluation a durable window is no
durable optimizer step: that step is then -1.
"""

from eyas_cli.progress import RUNNING
from eyas_contract import wire
from eyas_contract.states import Gang, Phase
from eyas_operator.api.status import JobStatus
from eyas_operator.names import JobIdentity

_ENDS = {"Complete": Phase.COMPLETE, "Failed": Phase.FAILED}


def reply_of(job: JobIdentity, status: JobStatus) -> wire.StatusReply | None:
    """As of the last time that the operator looked; None before the service was heard for the first time."""
    progress = status.progress
    if not progress.observed_time:
        return None
    durable = progress.durable_step
    exact = next((entry for entry in status.conditions if entry.type == "Exact"), None)
    inexact = exact is not None and exact.status == "False"
    return wire.StatusReply(
        job_uid=job.job_uid,
        store_epoch=status.store_epoch,
        phase=_ENDS.get(status.state, Phase.RUNNING if progress.total_steps else Phase.PREPARING),
        failure="",
        attempt=status.attempt,
        incarnation="",
        gang=Gang.OPEN if status.state == RUNNING else Gang.CLOSED,
        total_steps=progress.total_steps,
        total_samples=progress.total_samples,
        sealed_step=progress.step,
        acked_step=progress.step,
        durable_step=progress.durable_step,
        samples_ready=progress.lag,
        samples_waiting=progress.lag,
        samples_lost=0,
        samples_dead=progress.dead_letters,
        samples_committed=progress.produced,
        samples_recaptured=progress.lost,
        samples_trained=progress.acked,
        samples_evaluated=progress.evaluated,
        resident_objects=progress.lag,
        resident_bytes=progress.resident_bytes,
        reserved_bytes=0,
        cap_bytes=0,
        live_leases=0,
        paused="",
        exact=not inexact,
        inexact_reasons=(exact.message,) if inexact and exact is not None else (),
        capture_drift=0,
        seconds_since_advance=0.0,
        steps_per_second=_number(progress.steps_per_second),
        last_metrics={"loss": _number(progress.loss)} if progress.loss else {},
        checkpoint_directory=status.checkpoint.directory,
        weights_sha256=status.result.weights_sha256 if status.result is not None else "",
        dead_letters=(),
        incidents=(),
        total_training_steps=progress.total_training_steps,
        acked_training_step=progress.training_step,
        samples_replayed=progress.replayed,
        samples_applied_twice=progress.applied_twice,
        samples_missing=progress.missing,
        durable_training_step=durable if progress.total_training_steps == progress.total_steps else -1,
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
