"""`Moment`: everything a policy may look at, and the words with which policies change a status.

Pure. A policy is `(moment, status) -> status`; `plan` applies them in a fixed order.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from eyas_operator.api.job import JobSpec
from eyas_operator.api.status import Condition, JobStatus, Stage, Unit
from eyas_operator.names import JobIdentity, PodIdentity, Role
from eyas_operator.observe import Observed
from eyas_operator.settings import Settings
from eyas_operator.world import seconds_of, time_of

RUNTIME_REASONS: Final = frozenset({"CheckpointsLost", "InputsChanged"})
"""Reasons of `Failed` that the runtime itself finds; it writes them as the first word of its sentence."""
CONFIG_ERROR: Final = "ConfigError"
"""Reason of `Failed` for a mistake in the job or in its inputs that only a pod could find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One look at one job."""

    job: JobIdentity
    generation: int
    spec: JobSpec
    settings: Settings
    observed: Observed
    now: float
    """Unix seconds."""

    @property
    def time(self) -> str:
        """`now` as RFC 3339."""
        return time_of(self.now)

    def since(self, time: str) -> float:
        """Seconds since `time`; 0 for the empty string."""
        return self.now - seconds_of(time) if time else 0.0


Policy = Callable[[Moment, JobStatus], JobStatus]


def unit_name(unit: Unit) -> str:
    """`producer-1`, `consumers`, `metadata`."""
    if unit.role is Role.CONSUMER:
        return "consumers"
    return unit.role.value if unit.role in (Role.METADATA, Role.STORE_MASTER) else f"{unit.role}-{unit.index}"


def members(status: JobStatus, unit: Unit) -> tuple[PodIdentity, ...]:
    """The pods that a unit is made of."""
    if unit.role is Role.CONSUMER:
        return tuple(
            PodIdentity(role=Role.CONSUMER, index=index, serial=unit.serial) for index in range(status.gang.replicas)
        )
    epoch = status.store_epoch if unit.role is Role.METADATA else 0
    return (PodIdentity(role=unit.role, index=unit.index, serial=unit.serial, store_epoch=epoch),)


def gang_unit(status: JobStatus) -> Unit | None:
    """The consumers' unit."""
    return next((unit for unit in status.units if unit.role is Role.CONSUMER), None)


def with_unit(status: JobStatus, changed: Unit) -> JobStatus:
    """`status` with the unit of the same role and index replaced, or added."""
    key = (changed.role, changed.index)
    others = [unit for unit in status.units if (unit.role, unit.index) != key]
    units = tuple(sorted([*others, changed], key=lambda unit: (unit.role.value, unit.index)))
    attempt = changed.serial if changed.role is Role.CONSUMER else status.attempt
    return replace(status, units=units, attempt=attempt)


def enter(moment: Moment, status: JobStatus, stage: Stage) -> JobStatus:
    """`status` in another stage, from now on."""
    return replace(status, stage=stage, stage_time=moment.time)


def end(moment: Moment, status: JobStatus, kind: str, reason: str, message: str) -> JobStatus:
    """The job is over: `kind` is `Complete` or `Failed`. Written once; nothing changes it afterwards."""
    if status.stage is Stage.ENDED:
        return status
    terminal = Condition(
        type=kind,
        status="True",
        reason=reason,
        message=message[:1024],
        last_transition_time=moment.time,
        observed_generation=moment.generation,
    )
    kept = tuple(entry for entry in status.conditions if entry.type != kind)
    ended = replace(status, conditions=(*kept, terminal), completion_time=moment.time)
    return enter(moment, ended, Stage.ENDED)


def reason_in(message: str, otherwise: str) -> tuple[str, str]:
    """(reason, message): what the runtime put before the colon if it is a reason that we document."""
    reason, colon, rest = message.strip().partition(": ")
    return (reason, rest) if colon and reason in RUNTIME_REASONS else (otherwise, message)


def fail(moment: Moment, status: JobStatus, reason: str, message: str) -> JobStatus:
    """The job failed for good."""
    return end(moment, status, "Failed", reason, message)
