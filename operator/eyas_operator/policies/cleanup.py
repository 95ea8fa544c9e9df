"""The end of a job whose features lie in a pool that other jobs share: its own are taken away before it may go.

Such a job carries a finalizer, put there before its first pod. The sweep is owed when the job is being deleted, or has
ended without one that the metadata service saw to its end. All pods go first, because a producer that still writes
would write after the sweep; then sweepers run, one after the other, until one says that nothing is left. After the same
patience as at the end of training the job is let go all the same: a pool that is away must not hold a job for ever.
"""

from dataclasses import replace
from typing import Final, Literal

from eyas_operator.api.status import Cleanup, JobStatus, Unit
from eyas_operator.names import PodIdentity, Role
from eyas_operator.policies.failures import FailureClass
from eyas_operator.policies.gang import drain_seconds
from eyas_operator.policies.moment import Moment
from eyas_operator.world import seconds_of, time_of

RETRY_SECONDS: Final = 5.0
"""Between a sweeper that failed and the next."""
SWEPT_REASON: Final = "TrainingComplete"
"""Of a job whose metadata service reported an empty store."""


def sweeper(cleanup: Cleanup) -> PodIdentity:
    """The pod of the present try."""
    return PodIdentity(role=Role.SWEEPER, index=0, serial=cleanup.serial)


def patience_seconds(moment: Moment) -> float:
    """How long a sweep is tried."""
    return drain_seconds(moment) + moment.spec.recovery.sweep_seconds


def advance(moment: Moment, status: JobStatus) -> JobStatus:
    """One step of the cleanup of a job that carries our finalizer and is being deleted or has ended."""
    cleanup = status.cleanup
    if cleanup.outcome:
        return status
    if not cleanup.began_time:
        cleanup = replace(cleanup, began_time=moment.time)
    if not _may_hold_features(status):
        return replace(status, cleanup=_over(cleanup, "NotNeeded"))
    view = moment.observed.pods.get(sweeper(cleanup)) if cleanup.serial else None
    if view is not None and view.failure is not None and view.failure.klass is FailureClass.DONE:
        return replace(status, cleanup=_over(cleanup, "Swept"))
    if moment.since(cleanup.began_time) >= patience_seconds(moment):
        return replace(status, cleanup=_over(cleanup, "GivenUp"))
    waits = bool(cleanup.not_before_time) and moment.now < seconds_of(cleanup.not_before_time)
    works = view is not None and view.failure is None
    if not works and not waits and not _writers(moment, cleanup):
        # A pod that may have existed is never made a second time: whatever became of it, the next has a new number.
        serial = max(cleanup.serial, moment.observed.highest_serial(Role.SWEEPER, None)) + 1
        cleanup = replace(cleanup, serial=serial, not_before_time=time_of(moment.now + RETRY_SECONDS))
    return replace(status, cleanup=cleanup)


def _may_hold_features(status: JobStatus) -> bool:
    """A producer may have run, and nobody saw the store empty since."""
    swept = any(
        entry.type == "Complete" and entry.status == "True" and entry.reason == SWEPT_REASON
        for entry in status.conditions
    )
    return not swept and any(_ran(unit) for unit in status.units if unit.role is Role.PRODUCER)


def _ran(unit: Unit) -> bool:
    return unit.launched or unit.serial > 1


def _writers(moment: Moment, cleanup: Cleanup) -> bool:
    """Some pod may still write; one that cannot be stopped had its time."""
    roles = [role for role in Role if role is not Role.SWEEPER]
    alive = any(view.alive for view in moment.observed.of_role(*roles))
    return alive and moment.since(cleanup.began_time) < drain_seconds(moment)


def _over(cleanup: Cleanup, outcome: Literal["NotNeeded", "Swept", "GivenUp"]) -> Cleanup:
    return replace(cleanup, outcome=outcome, not_before_time="")
