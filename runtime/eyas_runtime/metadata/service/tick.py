"""What time alone brings about: leases end, a gang hangs. Runs in the store's thread, several times a second."""

from typing import Final

from eyas_runtime.metadata.port import GangState
from eyas_runtime.metadata.service.consumer_calls import next_decision
from eyas_runtime.metadata.service.hang import Situation
from eyas_runtime.metadata.service.job import Job
from eyas_runtime.metadata.service.waiting import Topic

TICK_SECONDS: Final = 0.25


def tick(job: Job) -> None:
    """End leases that are over, close an incarnation that hangs."""
    _end_leases(job)
    gang = job.look_at_gang()
    if gang.open and gang.incarnation is not None:
        _watch(job, gang)


def _end_leases(job: Job) -> None:
    expired = job.terms.tick(now=job.clock.monotonic())
    for reason, over_deadline in (("expired", False), ("deadline", True)):
        ended = [each.lease_id for each in expired if each.over_deadline is over_deadline]
        if ended:
            job.store.end_leases(ended, reason=reason, now=job.clock.wall())
            job.touch(Topic.CAPTURE)
            job.want_sweep()


def _watch(job: Job, gang: GangState) -> None:
    assert gang.incarnation is not None  # noqa: S101 asked by the caller
    situation = Situation(
        incarnation=gang.incarnation,
        world_size=gang.world_size,
        stepped=gang.acked_step > gang.checkpoint_step,
        due=gang.ordered_step > gang.acked_step or next_decision(job, gang) is not None,
        checkpoint_step=gang.checkpoint_ordered_step,
    )
    why = job.hang.tick(situation, now=job.clock.monotonic())
    if why is not None:
        job.store.close_incarnation(gang.incarnation, klass="Hang", message=why, now=job.clock.wall())
        job.look_at_gang()
