"""How long a failure went unseen: from the end of a container to the pass that opened its incident. Pure.

The end is what the node wrote, in whole seconds and by its own clock; a pod that vanished without a trace has none.
"""

from eyas_operator import names
from eyas_operator.api.incidents import Incident
from eyas_operator.api.status import JobStatus
from eyas_operator.names import PodIdentity, Role
from eyas_operator.telemetry import GANG
from eyas_operator.world import Children, Pod, seconds_of


def detections(old: JobStatus, new: JobStatus, children: Children, now: float) -> list[tuple[str, float]]:
    """Role and seconds for each incident of the operator's own that is new in `new` and has a known end."""
    known = {(incident.unit, incident.serial, incident.detected_time) for incident in old.incidents}
    found = []
    for incident in new.incidents:
        if incident.source != "Operator" or (incident.unit, incident.serial, incident.detected_time) in known:
            continue
        ends = [end for pod in children.pods if (end := _end(pod, incident))]
        if ends:
            # The first member that fell is what there was to see.
            found.append((incident.unit.rstrip("0123456789").rstrip("-"), now - min(ends)))
    return found


def _end(pod: Pod, incident: Incident) -> float:
    """Unix seconds at which the pod's container ended, if the incident is about it; else 0."""
    identity = names.pod_identity(pod.metadata.labels)
    if identity is None or identity.serial != incident.serial or _unit(identity) != incident.unit:
        return 0.0
    ends = [status.state.terminated for status in pod.status.container_statuses]
    times = [end.finished_at for end in ends if end is not None and end.finished_at]
    try:
        return min((seconds_of(time) for time in times), default=0.0)
    except ValueError:
        return 0.0


def _unit(identity: PodIdentity) -> str:
    match identity.role:
        case Role.CONSUMER:
            return GANG
        case Role.PRODUCER | Role.STORE_NODE:
            return f"{identity.role}-{identity.index}"
        case _:
            return identity.role.value
