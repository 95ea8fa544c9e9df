"""What operators, people and tests ask: status, metrics, audit. All run in the store's thread."""

from typing import Final

import msgspec

from eyas_contract import wire
from eyas_contract.states import Phase
from eyas_runtime.metadata.service.job import Job

STEPS_PER_REPLY_MAX: Final = 10_000


def status_now(job: Job) -> wire.StatusReply:
    """What the store knows, with what only this process knows: room, pauses, pace."""
    now, stored = job.clock.monotonic(), job.store.status()
    return msgspec.structs.replace(
        stored,
        cap_bytes=job.cap_bytes,
        paused=job.paused,
        seconds_since_advance=job.progress.seconds_since_advance(now=now),
        steps_per_second=job.progress.steps_per_second(now=now),
        lost_work_seconds=job.work.lost_seconds,
        goodput_ratio=job.work.goodput(now=now, complete=stored.phase is Phase.COMPLETE),
    )


def status(job: Job, request: wire.Empty) -> wire.StatusReply:
    """Answer a reader."""
    return status_now(job)


def metrics(job: Job, request: wire.MetricsRequest) -> wire.MetricsReply:
    """Training metrics by step."""
    return job.store.metrics(request.after_step, max(0, min(request.limit, STEPS_PER_REPLY_MAX)))


def audit(job: Job, request: wire.Empty) -> wire.AuditReply:
    """Promises 3 and 7 from the rows."""
    return job.store.audit()
