"""Backpressure as it is now: puts the stored bytes before `core.pressure` and does what it says, except leasing.

Called at every lease request, at every order that finds its window not ready, and at ticks; so a full store is noticed
by whoever it stops. Runs in the store's thread.
"""

from dataclasses import replace

from eyas_runtime.core import pressure
from eyas_runtime.core.prompts import Prompts, estimated_bytes
from eyas_runtime.core.sequence import Schedule
from eyas_runtime.metadata.port import GangState, GroupNeed, Usage
from eyas_runtime.metadata.service.job import Job
from eyas_runtime.metadata.service.waiting import Topic

_NOT_PREPARED = pressure.Decision(kind="wait", reason="the inputs are not prepared")


def look(job: Job) -> tuple[pressure.Decision, GroupNeed | None]:
    """Decide about the lowest group in need; force a checkpoint, evict or fail the job where that is the decision."""
    plan = job.plan()
    if plan is None:
        return _NOT_PREPARED, None
    needs = job.store.groups_in_need(limit=1)
    need = needs[0] if needs else None
    job.cap_bytes = _cap(job, job.pool_capacity_bytes)
    decision = _decide(job, view_of(job, need, *plan))
    job.paused = decision.reason if decision.kind in {"wait", "checkpoint", "impossible"} else ""
    _act(job, decision)
    return decision, need


def _cap(job: Job, pool_bytes: int | None) -> int:
    store = job.config.store
    return pressure.effective_cap(
        spec_bytes=store.max_resident_bytes, pool_capacity_bytes=pool_bytes, external=store.external
    )


def _decide(job: Job, view: pressure.View) -> pressure.Decision:
    """What can be evicted is summed over all objects, so it is asked for only when the decision hangs on it."""
    decision = pressure.decide(view)
    if decision.kind != "evict" or view.kept_bytes > 0:
        return decision
    evictable = job.store.evictable_bytes(max(view.group_end, view.next_window_end))
    return pressure.decide(replace(view, evictable_bytes=evictable))


def _act(job: Job, decision: pressure.Decision) -> None:
    wanted = decision.kind == "checkpoint"
    if wanted and not job.pressure:
        job.touch(Topic.WINDOWS)
    job.pressure = wanted
    if decision.kind == "evict":
        freed = job.store.evict(nbytes=decision.nbytes, above_sequence=decision.above_sequence, now=job.clock.wall())
        if freed:
            job.touch(Topic.CAPTURE)
            job.wake_sweeper()
    elif decision.kind == "wait":
        job.wake_sweeper_if_garbage()
    elif decision.kind == "impossible" and not job.failed:
        job.mark_failed(f"StoreTooSmall: {decision.reason}")


def view_of(job: Job, need: GroupNeed | None, schedule: Schedule, prompts: Prompts) -> pressure.View:
    """The numbers that `core.pressure` decides from; `evictable_bytes` is an upper bound."""
    usage, gang = job.store.usage(), job.store.gang()
    window = schedule.window(next_step(gang))
    groups = {schedule.group_of(sequence) for sequence in window}
    return pressure.View(
        cap_bytes=job.cap_bytes,
        limit_bytes=_cap(job, job.config.store.pool_bytes or None),
        resident_bytes=usage.resident_bytes,
        garbage_bytes=usage.garbage_bytes,
        kept_bytes=usage.kept_bytes,
        reserved_bytes=usage.reserved_bytes,
        window_bytes=estimated_bytes(schedule, prompts, window),
        largest_group_bytes=max(
            (estimated_bytes(schedule, prompts, schedule.group(group)) for group in groups), default=0
        ),
        next_window_end=window.stop,
        group_first_sequence=None if need is None else need.first_sequence,
        group_bytes=0 if need is None else need.estimated_bytes,
        group_end=0 if need is None else need.end_sequence,
        evictable_bytes=usage.resident_bytes,
        checkpoint_frees_bytes=_freed_by_checkpoint(usage, gang),
        checkpoint_pending=gang.open and gang.checkpoint_ordered_step != 0,
    )


def next_step(gang: GangState) -> int:
    """The next window that nobody trains yet: while a gang is open, the one after its last order."""
    return (gang.ordered_step if gang.open else gang.durable_step) + 1


def _freed_by_checkpoint(usage: Usage, gang: GangState) -> int:
    """A closed gang writes no checkpoint; windows that are ordered and not acked yet are freed by one all the same."""
    if not gang.open:
        return 0
    return max(usage.trained_bytes, 1 if gang.ordered_step > gang.durable_step else 0)
