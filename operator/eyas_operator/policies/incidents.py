"""Incidents: every restart with its cause and its price, from detection to the first work after it.

The operator's own (pods, gangs, claims) are opened and closed here; the metadata service's (children restarted in
place, hangs, lost samples) are copied. The list is bounded: the newest stay, and the open ones before closed ones.
"""

from dataclasses import replace

from eyas_contract import wire
from eyas_operator.api.status import (
    INCIDENT_MESSAGE_CHARACTERS_MAX,
    INCIDENTS_MAX,
    Incident,
    JobStatus,
    Stage,
    Unit,
)
from eyas_operator.names import Role
from eyas_operator.observe import PodState
from eyas_operator.policies.failures import Failure
from eyas_operator.policies.moment import Moment, members, unit_name
from eyas_operator.world import seconds_of, time_of


def opened(moment: Moment, status: JobStatus, unit: Unit, failure: Failure) -> JobStatus:
    """`status` with an incident for the end of this unit's present serial."""
    report = moment.observed.report
    incident = Incident(
        klass=failure.klass.value,
        unit=unit_name(unit),
        source="Operator",
        message=failure.message,
        node=failure.node,
        serial=unit.serial,
        counted=failure.counted,
        detected_time=moment.time,
        step_detected=report.acked_step if report is not None else status.progress.step,
    )
    return replace(status, incidents=bounded((*status.incidents, incident)))


def bounded(incidents: tuple[Incident, ...]) -> tuple[Incident, ...]:
    """At most `INCIDENTS_MAX`, in order of detection; closed and oldest go first."""
    ordered = sorted(incidents, key=lambda incident: (incident.detected_time, incident.unit, incident.serial))
    excess = len(ordered) - INCIDENTS_MAX
    if excess <= 0:
        return tuple(ordered)
    droppable = sorted(range(len(ordered)), key=lambda place: (ordered[place].open, place))[:excess]
    return tuple(incident for place, incident in enumerate(ordered) if place not in set(droppable))


def advance(moment: Moment, status: JobStatus) -> JobStatus:
    """Fill in what can be seen now: the successor is ready, work was done after it, the service's own incidents."""
    progressed = tuple(
        _advanced(moment, status, incident) if incident.source == "Operator" and incident.open else incident
        for incident in status.incidents
    )
    report = moment.observed.report
    if report is not None:
        own = tuple(incident for incident in progressed if incident.source == "Operator")
        progressed = (*own, *(_copied(incident) for incident in report.incidents[-INCIDENTS_MAX:]))
    return replace(status, incidents=bounded(progressed))


def _advanced(moment: Moment, status: JobStatus, incident: Incident) -> Incident:
    unit = next((unit for unit in status.units if unit_name(unit) == incident.unit), None)
    drains = unit is not None and unit.role is Role.CONSUMER and bool(status.gang.draining_reason)
    if status.stage is Stage.ENDED or unit is None or (unit.idle and not drains):
        # Nobody will work after it any more under this name: its price is what it took so far.
        return _closed(moment, incident)
    if not incident.replaced_time:
        if not _ready(moment, status, unit, incident):
            return incident
        incident = replace(incident, replaced_time=moment.time)
    return _watched(moment, unit, incident)


def _ready(moment: Moment, status: JobStatus, unit: Unit, incident: Incident) -> bool:
    """The successor runs. A gang counts from the moment its pods run: its ranks are ready only once they train."""
    if unit.serial <= incident.serial:
        return False
    started = (PodState.READY, PodState.RUNNING) if unit.role is Role.CONSUMER else (PodState.READY,)
    views = [moment.observed.pods.get(identity) for identity in members(status, unit)]
    return all(view is not None and view.state in started for view in views)


def _watched(moment: Moment, unit: Unit, incident: Incident) -> Incident:
    """Record where work resumes, then close at the first step (or captured sample) beyond it."""
    report = moment.observed.report
    if report is None or (unit.role is Role.CONSUMER and report.attempt <= incident.serial):
        return incident
    if incident.step_resumed < 0:
        resumed = report.durable_step if unit.role is Role.CONSUMER else report.acked_step
        incident = replace(
            incident,
            step_resumed=resumed,
            samples_resumed=report.samples_committed,
            windows_replayed=max(0, incident.step_detected - resumed) if unit.role is Role.CONSUMER else 0,
        )
    stepped = report.acked_step > incident.step_resumed
    captured = unit.role is not Role.CONSUMER and report.samples_committed > incident.samples_resumed
    return _closed(moment, incident) if stepped or captured else incident


def _closed(moment: Moment, incident: Incident) -> Incident:
    seconds = round(moment.now - seconds_of(incident.detected_time))
    return replace(incident, first_step_time=moment.time, seconds=max(0, seconds))


def _copied(incident: wire.Incident) -> Incident:
    recovered = time_of(incident.recovered) if incident.recovered else ""
    return Incident(
        klass=incident.klass,
        unit=incident.unit,
        source="Service",
        message=incident.message[:INCIDENT_MESSAGE_CHARACTERS_MAX],
        detected_time=time_of(incident.detected),
        replaced_time=recovered,
        first_step_time=recovered,
        seconds=round(incident.recovered - incident.detected) if incident.recovered else -1,
        windows_replayed=incident.windows_replayed,
        step_detected=incident.step,
    )
