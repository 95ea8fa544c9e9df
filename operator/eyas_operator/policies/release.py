"""Release: a job that cannot go on because a pod finds no place gives its other places back.

A gang that waits for its last pod trains nothing and holds everybody else's GPUs, and two such gangs can wait for each
other for ever. So a pod that could not start for `recoveryTimeoutSeconds` while no step was made ends the present
attempt: producers and consumers are stopped for `backoff.maxSeconds`, in which the scheduler gives their GPUs to
whoever waits, and are then made again. Nothing is counted and nothing fails: it goes on until there is a place, or
until `activeDeadlineSeconds`. Kueue's `waitForPodsReady.recoveryTimeout` evicts and requeues by the same rule.

Before the first step `startupDeadlineSeconds` rules: a job that never ran may simply ask for too much.
"""

from dataclasses import replace

from eyas_operator.api.status import JobStatus, Stage, Unit
from eyas_operator.observe import PodState, PodView
from eyas_operator.policies import incidents
from eyas_operator.policies.failures import Failure, FailureClass
from eyas_operator.policies.moment import Moment, members, unit_name
from eyas_operator.world import seconds_of


def release(moment: Moment, status: JobStatus) -> JobStatus:
    """Begin a release when a pod has waited for too long, and end one whose pause is over."""
    if status.released_time and not released(moment, status):
        status = replace(status, released_time="")
    if status.stage is not Stage.RUNNING or status.released_time or not status.first_step_seen:
        return status
    limit = moment.spec.recovery.recovery_timeout_seconds
    if _seconds_without_a_step(moment, status) < limit:
        return status
    for unit in status.units:
        for view in _waiting(moment, status, unit):
            if moment.since(view.created_time) >= limit:
                return replace(_told(moment, status, unit, view), released_time=moment.time)
    return status


def released(moment: Moment, status: JobStatus) -> bool:
    """No producer and no consumer is wanted now."""
    return bool(status.released_time) and moment.now < ends(moment, status)


def ends(moment: Moment, status: JobStatus) -> float:
    """When the present release is over, in Unix seconds."""
    return seconds_of(status.released_time) + moment.spec.recovery.backoff.max_seconds


def _seconds_without_a_step(moment: Moment, status: JobStatus) -> float:
    seen = moment.since(status.progress.last_advance_time)
    report = moment.observed.report
    return seen if report is None else min(seen, report.seconds_since_advance)


def _waiting(moment: Moment, status: JobStatus, unit: Unit) -> list[PodView]:
    if unit.idle:
        return []
    views = [moment.observed.pods.get(identity) for identity in members(status, unit)]
    return [view for view in views if view is not None and view.state is PodState.WAITING and not view.deleting]


def _told(moment: Moment, status: JobStatus, unit: Unit, view: PodView) -> JobStatus:
    """One incident for all releases of one wait: an outage of a weekend must not push every other out of the list."""
    klass = FailureClass.RECOVERY_TIMEOUT
    if any(known.open and (known.klass, known.unit) == (klass, unit_name(unit)) for known in status.incidents):
        return status
    limit = moment.spec.recovery.recovery_timeout_seconds
    pause = moment.spec.recovery.backoff.max_seconds
    message = (
        f"{view.name} could not start for {limit} seconds ({view.waiting}); "
        f"producers and consumers give their places back for {pause} seconds, then try again"
    )
    return incidents.opened(moment, status, unit, Failure(klass=klass, message=message, node=view.node))
