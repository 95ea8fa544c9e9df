"""Events: what people are told when a status changed. Pure: from the old status and the new one.

Reasons are verbs in the past, from this file only. Facts of a failure (class, message, node) are in the text, because
the pod they came from is deleted afterwards.
"""

from eyas_operator.api.incidents import Incident
from eyas_operator.api.status import JobStatus, Stage
from eyas_operator.cluster import Event
from eyas_operator.status import is_true

_MESSAGE_CHARACTERS_MAX = 900


def events(old: JobStatus, new: JobStatus) -> tuple[Event, ...]:
    """At most a handful per pass; a pass without a change gives none."""
    found = [_replaced(incident) for incident in _fresh(old, new)]
    if new.stage is not old.stage:
        found += _stage(new)
    if new.store_epoch > old.store_epoch > 0:
        found.append(_next_epoch(old, new))
    if new.cleanup.outcome != old.cleanup.outcome:
        found += _cleanup(new)
    for kind, reason in (("Stalled", "TrainingStalled"), ("Recovering", "")):
        if reason and is_true(new, kind) and not is_true(old, kind):
            found.append(Event(type="Warning", reason=reason, message=_message(new, kind), action="Observe"))
    if _turned_false(old, new, "Exact"):
        found.append(Event(type="Warning", reason="RunDeviated", message=_message(new, "Exact"), action="Observe"))
    if _turned_false(old, new, "Accepted"):
        found.append(Event(type="Warning", reason="SpecRejected", message=_message(new, "Accepted"), action="Validate"))
    return tuple(found)


def _next_epoch(old: JobStatus, new: JobStatus) -> Event:
    damaged = old.store_epoch in new.metadata.damaged_epochs
    what = "the metadata database was damaged and is kept" if damaged else "the metadata claim was lost"
    return Event(
        type="Warning",
        reason="MetadataDamaged" if damaged else "MetadataLost",
        message=f"{what}; store epoch {new.store_epoch} begins with a new claim",
        action="ReplaceClaim",
    )


def _fresh(old: JobStatus, new: JobStatus) -> list[Incident]:
    known = {(incident.unit, incident.serial, incident.detected_time) for incident in old.incidents}
    return [
        incident
        for incident in new.incidents
        if incident.restart and (incident.unit, incident.serial, incident.detected_time) not in known
    ]


def _replaced(incident: Incident) -> Event:
    if incident.source == "Service":
        return _restarted_in_place(incident)
    gang = incident.unit == "consumers"
    where = f" on {incident.node}" if incident.node else ""
    number = f"attempt {incident.serial}" if gang else f"number {incident.serial}"
    message = f"{incident.unit}, {number}{where}: {incident.klass}: {incident.message}"
    return Event(
        type="Warning",
        reason="ConsumerGangRestarted" if gang else "PodReplaced",
        message=message[:_MESSAGE_CHARACTERS_MAX],
        action="Restart",
    )


def _restarted_in_place(incident: Incident) -> Event:
    """Nobody has to act on a process that came back in its pod; a hang is worth a look."""
    hang = incident.klass == "Hang"
    return Event(
        type="Warning" if hang else "Normal",
        reason="HangDetected" if hang else "ProcessRestarted",
        message=f"{incident.unit}: {incident.message}"[:_MESSAGE_CHARACTERS_MAX],
        action="Restart",
    )


def _stage(new: JobStatus) -> list[Event]:
    match new.stage:
        case Stage.RUNNING:
            return [Event(type="Normal", reason="JobStarted", message=f"attempt {new.attempt}", action="Start")]
        case Stage.SUSPENDED:
            return [Event(type="Normal", reason="JobSuspended", message="all pods are stopped", action="Suspend")]
        case Stage.ENDED if is_true(new, "Complete"):
            return [Event(type="Normal", reason="JobCompleted", message=_message(new, "Complete"), action="Finish")]
        case Stage.ENDED:
            return [Event(type="Warning", reason="JobFailed", message=_message(new, "Failed"), action="Finish")]
        case _:
            return []


def _cleanup(new: JobStatus) -> list[Event]:
    if new.cleanup.outcome == "Swept":
        return [
            Event(type="Normal", reason="PoolSwept", message="the shared pool is empty of this job", action="Sweep")
        ]
    if new.cleanup.outcome == "GivenUp":
        message = "the shared pool could not be swept in time; it may still hold features of this job"
        return [Event(type="Warning", reason="PoolNotSwept", message=message, action="Sweep")]
    return []


def _message(status: JobStatus, kind: str) -> str:
    found = next((condition for condition in status.conditions if condition.type == kind), None)
    return f"{found.reason}: {found.message}"[:_MESSAGE_CHARACTERS_MAX] if found is not None else ""


def _turned_false(old: JobStatus, new: JobStatus, kind: str) -> bool:
    def is_false(status: JobStatus) -> bool:
        return any(condition.type == kind and condition.status == "False" for condition in status.conditions)

    return is_false(new) and not is_false(old)
