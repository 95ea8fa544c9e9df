"""An incident on one line: when, what, why, and what became of it. Pure.

Only what was seen: a price in seconds stands where work was seen to go on, and what ended in another way says how.
"""

from collections.abc import Iterator
from datetime import datetime

from eyas_contract.words import counted
from eyas_operator.api.incidents import Incident

MESSAGE_CHARACTERS_MAX = 160
"""On a screen; the whole message is in the status."""
_OTHER_ENDS = {
    "Suspended": "the job was suspended before work went on",
    "Ended": "the job ended before work went on",
    "Removed": "its unit is not wanted any more",
}


def clock(rfc3339: str) -> str:
    """Local time of day of an RFC 3339 instant."""
    return datetime.fromisoformat(rfc3339).astimezone().strftime("%H:%M:%S") if rfc3339 else "--:--:--"


def incident_line(incident: Incident) -> str:
    """Time, unit, class, message and what became of it."""
    message = incident.message
    if len(message) > MESSAGE_CHARACTERS_MAX:
        message = f"{message[:MESSAGE_CHARACTERS_MAX]}..."
    return f"{clock(incident.detected_time)} {incident.unit} {incident.klass}: {message} ({outcome(incident)})"


def outcome(incident: Incident) -> str:
    """What became of an incident so far."""
    if incident.outcome in _OTHER_ENDS:
        return _OTHER_ENDS[incident.outcome]
    if not incident.open:
        return _price(incident)
    if incident.replaced_time:
        return f"back after {_since(incident, incident.replaced_time)}, no work seen yet"
    return "not back yet" if incident.restart else "open"


def _price(incident: Incident) -> str:
    took = _since(incident, incident.first_step_time)
    if incident.unit == "consumers":
        replayed = incident.windows_replayed
        steps = f", {counted(replayed, 'step')} trained again" if replayed else ""
        return f"next step after {took}{steps}"
    if incident.replaced_time:
        return f"back after {_since(incident, incident.replaced_time)}"
    return f"{'captured again' if incident.klass == 'SampleLost' else 'next step'} after {took}"


def _since(incident: Incident, time: str) -> str:
    seconds = datetime.fromisoformat(time) - datetime.fromisoformat(incident.detected_time)
    return f"{max(0.0, seconds.total_seconds()):.1f} s"


class IncidentNews:
    """What is new about incidents since the last look: each is told when it is seen first, and when it is over."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, str, str], bool] = {}

    def since_last(self, incidents: tuple[Incident, ...]) -> Iterator[str]:
        """One line a piece of news, in order of detection."""
        for incident in incidents:
            key = (incident.unit, incident.klass, incident.detected_time, incident.message)
            was_open = self._open.get(key)
            self._open[key] = incident.open
            if was_open is None:
                yield f"incident {incident_line(incident)}"
            elif was_open and not incident.open:
                yield (
                    f"over     {clock(incident.detected_time)} {incident.unit} {incident.klass}: {outcome(incident)}"
                )
