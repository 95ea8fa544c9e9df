"""Incidents: every restart with its cause and its price, from detection to the first work after it.

The operator's own (pods, gangs, claims) are opened and closed here; the metadata service's (children restarted in
place, hangs, lost samples) are copied. What is over stays as it is. The list is bounded: the newest stay, and the open
ones before closed ones.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal

from eyas_contract import wire
from eyas_contract.states import Phase
from eyas_operator.api.incidents import INCIDENT_MESSAGE_CHARACTERS_MAX, INCIDENTS_MAX, Incident
from eyas_operator.api.status import JobStatus, Stage, Unit
from eyas_operator.names import Role
from eyas_operator.observe import PodState
from eyas_operator.policies.failures import Failure
from eyas_operator.policies.moment import Moment, members, unit_name
from eyas_operator.world import seconds_of, time_of

_OVER: Final[Mapping[Stage, Literal["Suspended", "Ended"]]] = {Stage.SUSPENDED: "Suspended", Stage.ENDED: "Ended"}
"""Stages in which nothing is worked any more, and what they make of an open incident."""
_RANKS: Final = "consumers"
_IN_PLACE: Final = "ChildExited"
"""The service's class for a child that its supervisor started again."""


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
    """At most `INCIDENTS_MAX`, in order of detection; what is over goes first, and restarts after all others."""
    ordered = sorted(incidents, key=lambda incident: (incident.detected_time, incident.unit, incident.serial))
    excess = len(ordered) - INCIDENTS_MAX
    if excess <= 0:
        return tuple(ordered)
    droppable = sorted(range(len(ordered)), key=lambda place: _worth(ordered[place], place))[:excess]
    return tuple(incident for place, incident in enumerate(ordered) if place not in set(droppable))


def _worth(incident: Incident, place: int) -> tuple[bool, bool, int]:
    return (incident.open, incident.restart, place)


def advance(moment: Moment, status: JobStatus) -> JobStatus:
    """Fill in what can be seen now: the successor is ready, work was done after it, the service's own incidents."""
    progressed = tuple(
        _advanced(moment, status, incident) if incident.source == "Operator" and incident.open else incident
        for incident in status.incidents
    )
    own, told = _with_the_services(moment, progressed)
    progressed = (*own, *(_with_successor(status, incident, own) for incident in told))
    over = _OVER.get(status.stage)
    if over is not None:
        progressed = tuple(replace(incident, outcome=over) if incident.open else incident for incident in progressed)
    return replace(status, incidents=bounded(progressed))


def _advanced(moment: Moment, status: JobStatus, incident: Incident) -> Incident:
    unit = next((unit for unit in status.units if unit_name(unit) == incident.unit), None)
    if unit is None:
        return replace(incident, outcome="Removed")
    if unit.role is Role.CONSUMER and _finished_by_a_later_attempt(moment, incident):
        return _closed(moment, incident)
    if unit.idle and not _comes_back(status, unit):
        # Nobody works under this name now. What that means is known when the job is suspended or has ended.
        return replace(incident, outcome="Removed") if status.stage is Stage.RUNNING else incident
    if not incident.replaced_time:
        if not _ready(moment, status, unit, incident):
            return incident
        incident = replace(incident, replaced_time=moment.time)
    return _watched(moment, unit, incident)


def _comes_back(status: JobStatus, unit: Unit) -> bool:
    """It has no pods now, and gets new ones without anybody asking for them."""
    return bool(status.released_time) or (unit.role is Role.CONSUMER and bool(status.gang.draining_reason))


def _finished_by_a_later_attempt(moment: Moment, incident: Incident) -> bool:
    report = moment.observed.report
    return report is not None and report.phase is Phase.COMPLETE and report.attempt > incident.serial


def _with_the_services(
    moment: Moment, incidents: tuple[Incident, ...]
) -> tuple[tuple[Incident, ...], tuple[Incident, ...]]:
    """Our own, and the service's as it tells them now; those that it forgot with its volume as they were told."""
    report = moment.observed.report
    own = tuple(incident for incident in incidents if incident.source == "Operator")
    known = {_key(incident): incident for incident in incidents if incident.source == "Service"}
    for told in map(_copied, report.incidents[-INCIDENTS_MAX:] if report is not None else ()):
        before = known.get(_key(told))
        if before is None and _is_echo(told, own):
            own = tuple(_with_price_of(told, incident) for incident in own)
        elif before is None or before.open:
            known[_key(told)] = told
    return own, tuple(known.values())


def _with_successor(status: JobStatus, told: Incident, own: tuple[Incident, ...]) -> Incident:
    """A child's restart whose pod went before it could say that the child was ready: what became of the pod counts."""
    if told.klass != _IN_PLACE or told.unit == _RANKS or not told.open or told.replaced_time:
        return told
    ends = [incident for incident in own if incident.unit == told.unit and incident.serial >= told.serial > 0]
    if ends:
        end = min(ends, key=lambda incident: incident.serial)
        recovered = seconds_of(end.first_step_time) if end.first_step_time else None
        return replace(
            told,
            replaced_time=end.replaced_time,
            first_step_time=end.first_step_time,
            seconds=-1 if recovered is None else max(0, round(recovered - seconds_of(told.detected_time))),
            outcome=end.outcome,
        )
    unit = next((unit for unit in status.units if unit_name(unit) == told.unit), None)
    gone = status.stage is Stage.RUNNING and (unit is None or (unit.idle and not _comes_back(status, unit)))
    return replace(told, outcome="Removed") if gone else told


def _with_price_of(echo: Incident, incident: Incident) -> Incident:
    """The service knows to the step what was trained again; the operator's own look may have been older."""
    if (incident.unit, incident.serial) != (echo.unit, echo.serial):
        return incident
    return replace(incident, windows_replayed=max(incident.windows_replayed, echo.windows_replayed))


def _key(incident: Incident) -> tuple[str, str, str, str]:
    return (incident.unit, incident.klass, incident.detected_time, incident.message)


def _is_echo(told: Incident, own: tuple[Incident, ...]) -> bool:
    """What the service noticed of ranks or a child whose pods were known to be dead: one end, seen a second time."""
    return (told.unit == _RANKS or told.klass == _IN_PLACE) and any(
        incident.unit == told.unit
        and incident.serial >= told.serial > 0
        and incident.detected_time <= told.detected_time
        for incident in own
    )


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
    return replace(incident, first_step_time=moment.time, seconds=max(0, seconds), outcome="Recovered")


def _copied(incident: wire.Incident) -> Incident:
    return Incident(
        klass=incident.klass,
        unit=incident.unit,
        source="Service",
        message=incident.message[:INCIDENT_MESSAGE_CHARACTERS_MAX],
        serial=incident.serial,
        detected_time=time_of(incident.detected),
        replaced_time=time_of(incident.replaced) if incident.replaced else "",
        first_step_time=time_of(incident.recovered) if incident.recovered else "",
        seconds=max(0, round(incident.recovered - incident.detected)) if incident.recovered else -1,
        outcome="Recovered" if incident.recovered else "",
        windows_replayed=incident.windows_replayed,
        step_detected=incident.step,
    )
