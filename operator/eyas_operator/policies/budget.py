"""Restart budget: restarts without progress, with backoff; the first is immediate.

Progress is an advance of the durable step; for units that feed the training, a newly captured sample too. It resets
count and backoff, so a healthy job under one kill a minute never runs out, and a job that cannot move always does.
Restarts that do not count still make the pause longer: nothing loops hot.
"""

from dataclasses import replace

from eyas_operator.api.pools import Backoff
from eyas_operator.api.status import JobStatus, Unit
from eyas_operator.names import Role
from eyas_operator.policies.failures import Failure, FailureClass
from eyas_operator.policies.moment import Moment, fail, unit_name, with_unit
from eyas_operator.world import time_of

OUT_OF_MEMORY_MAX = 2
_EXPONENT_MAX = 32


def pause_seconds(backoff: Backoff, restarts_before: int) -> float:
    """Pause before the next restart after `restarts_before` restarts without progress: 0, base, 2 base, ... max."""
    if restarts_before == 0:
        return 0.0
    return float(min(backoff.max_seconds, backoff.base_seconds * 2 ** min(restarts_before - 1, _EXPONENT_MAX)))


def restart(moment: Moment, status: JobStatus, unit: Unit, failure: Failure) -> JobStatus:
    """The unit under its next serial, counted and paused; or the job failed when its budget is spent."""
    pause = pause_seconds(moment.spec.recovery.backoff, unit.pauses_without_progress)
    # A number that is skipped because its pod was never made restarted nothing.
    restarted = int(failure.klass is not FailureClass.NOT_CREATED)
    again = replace(
        unit,
        serial=next_serial(moment, unit),
        launched=False,
        seen=(),
        idle=False,
        not_before_time=time_of(moment.now + pause) if pause else "",
        restarts_without_progress=unit.restarts_without_progress + int(failure.counted),
        pauses_without_progress=unit.pauses_without_progress + 1,
        out_of_memory=unit.out_of_memory + int(failure.klass is FailureClass.OUT_OF_MEMORY),
        restarts=unit.restarts + restarted,
        last_class=failure.klass.value,
        last_message=failure.message,
    )
    status = replace(with_unit(status, again), restarts=status.restarts + restarted)
    return _spent(moment, status, again)


def next_serial(moment: Moment, unit: Unit) -> int:
    """One more than any number that this unit ever had; the store's own attempt counts for the gang."""
    highest = max(unit.serial, moment.observed.highest_serial(unit.role, _index(unit)))
    report = moment.observed.report
    if unit.role is Role.CONSUMER and report is not None:
        highest = max(highest, report.attempt)
    return highest + 1


def _index(unit: Unit) -> int | None:
    return None if unit.role is Role.CONSUMER else unit.index


def _spent(moment: Moment, status: JobStatus, unit: Unit) -> JobStatus:
    name = unit_name(unit)
    if unit.out_of_memory >= OUT_OF_MEMORY_MAX:
        message = f"{name} ran out of memory {unit.out_of_memory} times without progress; raise its memory limit"
        return fail(moment, status, "OutOfMemory", message)
    if unit.restarts_without_progress > moment.spec.recovery.max_restarts_without_progress:
        suspects = _suspects(moment) if unit.role is Role.PRODUCER else ""
        message = (
            f"{name} failed {unit.restarts_without_progress} times without progress; "
            f"the last time: {unit.last_class}: {unit.last_message}{suspects}"
        )
        return fail(moment, status, "RestartBudgetExhausted", message)
    return status


def _suspects(moment: Moment) -> str:
    report = moment.observed.report
    if report is None or not report.suspects:
        return ""
    return f"; producers died most often while they held {', '.join(report.suspects[:3])}"


def reset_on_progress(moment: Moment, status: JobStatus) -> JobStatus:
    """Counts and backoff start again when the durable step advanced, or, for producers, when samples were captured."""
    report = moment.observed.report
    if report is None:
        return status
    advanced = report.durable_step > status.progress.durable_step
    captured = report.samples_committed > status.progress.produced
    for unit in status.units:
        if advanced or (captured and unit.role is not Role.CONSUMER):
            status = with_unit(status, _fresh(unit))
    return status


def _fresh(unit: Unit) -> Unit:
    if not (unit.restarts_without_progress or unit.pauses_without_progress or unit.out_of_memory):
        return unit
    return replace(unit, restarts_without_progress=0, pauses_without_progress=0, out_of_memory=0)
