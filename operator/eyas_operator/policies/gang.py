"""The consumer gang: it restarts, resizes and drains as a whole, each time with the next attempt.

A crash of one member ends the attempt at once. A member that was asked to stop (drain, eviction, resize) lets all
ranks write a checkpoint and exit 75; then the operator waits for the others, but no longer than their grace period.
"""

from dataclasses import replace

from eyas_operator.api.status import JobStatus, Stage, Unit
from eyas_operator.names import Role
from eyas_operator.policies import incidents
from eyas_operator.policies.budget import restart
from eyas_operator.policies.failures import GRACEFUL, Failure, FailureClass
from eyas_operator.policies.moment import Moment, gang_unit, members
from eyas_operator.policies.units import outdated, recover, with_present_shape

GRACE_SECONDS = 120
"""As `desired.consumers`."""
RESIZE = "Resize"
CULPRIT_SECONDS = 5.0
"""How long to wait for the member that the others died of: its end may be told last, and says whose fault it was."""
SEVERITY = (
    FailureClass.CONFIG,
    FailureClass.OUT_OF_MEMORY,
    FailureClass.OUT_OF_STORAGE,
    FailureClass.HARDWARE,
    FailureClass.HANG,
    FailureClass.CRASH,
    FailureClass.NODE_LOST,
    FailureClass.FENCED,
    FailureClass.DISRUPTED,
    FailureClass.TEMPORARY,
    FailureClass.TEMPLATE_CHANGED,
    FailureClass.POD_DELETED,
    FailureClass.KILLED_WITH_GANG,
    FailureClass.NOT_CREATED,
    FailureClass.DONE,
)
"""The cause is the most severe end among the members: the others died of it."""


def watch_gang(moment: Moment, status: JobStatus) -> JobStatus:
    """Decide whether the present attempt goes on, drains, or is over."""
    unit = gang_unit(status)
    if unit is None or status.stage is Stage.ENDED:
        return status
    ends = _ends(moment, status, unit)
    config = next((end for end in ends if end.klass is FailureClass.CONFIG), None)
    if config is not None:
        return recover(moment, status, unit, config)
    if status.stage is not Stage.RUNNING:
        return status
    if status.gang.draining_reason:
        return _drained(moment, status, unit)
    if unit.idle:
        return status
    if ends:
        return _ended(moment, status, unit, ends)
    return _resized(moment, status)


def _ends(moment: Moment, status: JobStatus, unit: Unit) -> list[Failure]:
    """How members of the present attempt ended; one that may have been made and is missing is never made again."""
    found = []
    for identity in members(status, unit):
        view = moment.observed.pods.get(identity)
        if view is None and unit.launched:
            seen = identity.index in unit.seen
            klass = FailureClass.POD_DELETED if seen else FailureClass.NOT_CREATED
            found.append(
                Failure(klass=klass, message=f"pod {identity.index} {'vanished' if seen else 'was never seen'}")
            )
        elif view is not None:
            failure = view.failure or outdated(moment, unit, view)
            found += [failure] if failure is not None else []
    return found


def _ended(moment: Moment, status: JobStatus, unit: Unit, ends: list[Failure]) -> JobStatus:
    worst = min(ends, key=lambda end: SEVERITY.index(end.klass))
    if worst.klass is FailureClass.DONE:
        return _done(moment, status, unit, len(ends))
    if _culprit_may_come(moment, status, unit, worst):
        return status
    if worst.klass in GRACEFUL and _members_alive(moment, status, unit):
        return _drain(moment, incidents.opened(moment, status, unit, worst), worst.klass.value)
    return with_present_shape(moment, recover(moment, status, unit, worst))


def _culprit_may_come(moment: Moment, status: JobStatus, unit: Unit, worst: Failure) -> bool:
    if worst.klass is not FailureClass.KILLED_WITH_GANG or not worst.time:
        return False
    return moment.since(worst.time) < CULPRIT_SECONDS and _members_alive(moment, status, unit)


def _done(moment: Moment, status: JobStatus, unit: Unit, count: int) -> JobStatus:
    """Ranks that end well while the service has work left: wait for its word, then call it a failure."""
    report = moment.observed.report
    if count < status.gang.replicas or report is None or report.store_epoch != status.store_epoch:
        return status
    # Also of a service that never heard of this attempt, because its volume was lost since: nobody else would tell it.
    early = Failure(klass=FailureClass.EARLY_EXIT, message="the consumers ended although windows are left to train")
    return with_present_shape(moment, recover(moment, status, unit, early))


def _resized(moment: Moment, status: JobStatus) -> JobStatus:
    asked = (moment.spec.consumers.replicas, moment.spec.consumers.processes_per_pod)
    if asked == (status.gang.replicas, status.gang.processes_per_pod):
        return status
    return _drain(moment, status, RESIZE)


def _drain(moment: Moment, status: JobStatus, reason: str) -> JobStatus:
    return replace(status, gang=replace(status.gang, draining_reason=reason, draining_time=moment.time))


def _drained(moment: Moment, status: JobStatus, unit: Unit) -> JobStatus:
    """End the drain when nobody of any attempt runs, or when one that cannot stop had its time."""
    running = [view for view in moment.observed.of_role(Role.CONSUMER) if view.alive]
    if running and moment.since(status.gang.draining_time) < drain_seconds(moment):
        return status
    reason = status.gang.draining_reason
    status = with_present_shape(moment, status)
    if reason == RESIZE:
        # Not a failure: the schedule wakes the gang at once.
        return status
    failure = Failure(klass=FailureClass(reason), message=unit.last_message or "asked to stop")
    return restart(moment, status, unit, failure)


def drain_seconds(moment: Moment) -> float:
    """Longest time to wait for consumers that were asked to stop."""
    grace = moment.spec.consumers.template.spec.termination_grace_period_seconds or GRACE_SECONDS
    return grace + moment.settings.stop_margin_seconds


def _members_alive(moment: Moment, status: JobStatus, unit: Unit) -> bool:
    views = [moment.observed.pods.get(identity) for identity in members(status, unit)]
    return any(view is not None and view.alive for view in views)
