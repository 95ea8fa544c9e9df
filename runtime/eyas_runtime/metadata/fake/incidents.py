"""The reference store's list of incidents: what changes in it, as pure functions from list to list."""

from collections.abc import Callable, Sequence

import msgspec

from eyas_contract import wire

Incidents = list[wire.Incident]
_LOSSES = ("SampleLost", "LeaseExpired")


def with_another(incidents: Sequence[wire.Incident], incident: wire.Incident) -> Incidents:
    """The newest 256 with this one; of restarts only 24 of a unit and 48 in all, so that others are seen."""
    kept: Incidents = []
    for it in reversed([*incidents, incident]):
        restarts = [other for other in kept if other.klass == "ChildExited"]
        too_many = len(restarts) == 48 or sum(other.unit == it.unit for other in restarts) == 24
        if len(kept) < 256 and not (it.klass == "ChildExited" and too_many):
            kept.insert(0, it)
    return kept


def child_exit_known(incidents: Sequence[wire.Incident], unit: str, ended: float) -> bool:
    """Whether the end of this life is in the list."""
    return any(_is_exit(incident, unit, ended) for incident in incidents)


def child_replaced(incidents: Sequence[wire.Incident], unit: str, ended: float, ready: float) -> Incidents:
    """The successor of that life was ready."""
    return _changed(incidents, lambda it: _is_exit(it, unit, ended) and not it.replaced, replaced=ready)


def producer_replaced(incidents: Sequence[wire.Incident], unit: str, serial: int, now: float) -> Incidents:
    """A newer process of the producer has registered: its pods up to `serial` may be gone and tell nothing more."""
    return _changed(
        incidents,
        lambda it: (
            (it.klass, it.unit, it.replaced, it.recovered) == ("ChildExited", unit, 0.0, 0.0) and it.serial <= serial
        ),
        replaced=now,
    )


def ranks_replaced(incidents: Sequence[wire.Incident], now: float) -> Incidents:
    """Ranks are back."""
    return _changed(incidents, lambda it: it.unit == "consumers" and not it.replaced and not it.recovered, replaced=now)


def replayed(incidents: Sequence[wire.Incident], windows: int) -> Incidents:
    """The windows are replayed once: they are the price of what began the outage."""
    first = next((it for it in incidents if it.unit == "consumers" and not it.recovered), None)
    return _changed(incidents, lambda it: it is first and it.windows_replayed < windows, windows_replayed=windows)


def losses_over(incidents: Sequence[wire.Incident], now: float) -> Incidents:
    """Everything lost is captured again."""
    return _changed(incidents, lambda it: not it.recovered and it.klass in _LOSSES, recovered=now)


def others_over(incidents: Sequence[wire.Incident], now: float) -> Incidents:
    """A step was trained: what had a successor is over."""
    return _changed(
        incidents,
        lambda it: not it.recovered and it.klass not in _LOSSES and (it.klass != "ChildExited" or it.replaced > 0),
        recovered=now,
    )


def children_over(incidents: Sequence[wire.Incident], now: float) -> Incidents:
    """A sample was captured: restarts of roles other than the ranks are over when they had a successor."""
    return _changed(
        incidents,
        lambda it: not it.recovered and it.klass == "ChildExited" and it.unit != "consumers" and it.replaced > 0,
        recovered=now,
    )


def _is_exit(incident: wire.Incident, unit: str, ended: float) -> bool:
    return (incident.klass, incident.unit, incident.detected) == ("ChildExited", unit, ended)


def _changed(incidents: Sequence[wire.Incident], which: Callable[[wire.Incident], bool], **changes: float) -> Incidents:
    return [msgspec.structs.replace(it, **changes) if which(it) else it for it in incidents]
