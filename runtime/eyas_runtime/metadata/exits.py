"""What an exit or a restart is called in the list of incidents. Pure; the same words in every store."""

from eyas_contract import wire
from eyas_contract.exits import describe

_SINGLETONS = ("metadata", "store-master")


def describe_exit(request: wire.ExitRequest) -> str:
    """How a rank ended, in words."""
    how = describe(request.code)
    why = "" if request.reason == how else request.reason.removeprefix(f"{how}: ")
    return f"rank {request.rank} ended with {how}{': ' if why else ''}{why}"


def incident_before_joining(request: wire.ExitRequest, *, ended: float, step: int) -> wire.Incident:
    """Ranks that died on their way into a gang closed nothing, but they were started again: one incident a life."""
    return wire.Incident(
        klass="ChildExited",
        unit="consumers",
        message=f"{describe_exit(request)}, before it had joined its gang",
        detected=ended,
        step=step,
        serial=request.attempt,
    )


def unit_of(request: wire.RestartRequest) -> str:
    """The unit's name as the operator writes it: `metadata`, `store-master`, `producer-1`."""
    return request.role if request.role in _SINGLETONS else f"{request.role}-{request.index}"


def producer_unit(index: int) -> str:
    """The unit that restarts of this producer are told of."""
    return f"producer-{index}"


def restart_incident(request: wire.RestartRequest, *, step: int) -> wire.Incident:
    """The incident of a child that its supervisor started again. `step`: where the job stood."""
    return wire.Incident(
        klass="ChildExited",
        unit=unit_of(request),
        message=f"ended and was started again in its pod: {request.reason}",
        detected=request.time,
        step=step,
        serial=request.serial,
        replaced=request.ready,
    )
