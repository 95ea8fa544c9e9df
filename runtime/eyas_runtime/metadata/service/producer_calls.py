"""What producers ask: register, prepare, lease, renew, commit, fail, return; and the restarts that supervisors tell.

All run in the store's thread.
"""

from typing import Final

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Fenced
from eyas_contract.ids import LeaseToken
from eyas_runtime.metadata.port import LeaseGrant, LiveLease
from eyas_runtime.metadata.service.job import Job, PrepareClaim
from eyas_runtime.metadata.service.leases import capture_deadline
from eyas_runtime.metadata.service.pressure import look
from eyas_runtime.metadata.service.waiting import Topic

PREPARE_TERMS: Final = 4.0
"""A claim on `prepare` holds for so many lease terms after its holder was last heard of; two that prepare at once do no
harm, because the first result wins and the second must be equal."""


def register(job: Job, request: wire.RegisterRequest) -> wire.RegisterReply:
    """Admit the process and end what its predecessors of the same index held."""
    holder = request.holder
    ended = job.store.register(holder, request.fingerprint, now=job.clock.wall())
    job.newest_holders[holder.index] = holder
    job.terms.drop(ended)
    claim = job.prepare_claim
    if claim is not None and claim.holder.index == holder.index and claim.holder != holder:
        job.prepare_claim = None
        job.touch(Topic.INPUTS)
    if ended:
        job.touch(Topic.CAPTURE)
        job.wake_sweeper()
    return wire.RegisterReply(
        job_uid=job.facts.job_uid, store_epoch=job.facts.store_epoch, prepared=job.prepared() is not None
    )


def restart(job: Job, request: wire.RestartRequest) -> wire.Empty:
    """A supervisor of any role but the ranks' started its child again: an incident, over when work is seen after it."""
    if request.role == "metadata" and not request.ready:
        # Whoever hears of it is the successor, and the pod that tells may be gone before it can say so.
        request = msgspec.structs.replace(request, ready=job.clock.wall())
    job.store.report_restart(request)
    return wire.Empty()


def may_tell(request: wire.RestartRequest, roles: frozenset[wire.RoleName]) -> bool:
    """Producers tell of producers; whoever holds the store's token, as the metadata pod does, of the other roles."""
    return ("producer" if request.role == "producer" else "store") in roles


def prepare(job: Job, request: wire.PrepareRequest) -> wire.PrepareReply:
    """Tell one producer at a time to prepare the inputs."""
    _admit(job, request.holder)
    if job.prepared() is not None:
        return wire.PrepareReply(verdict="done")
    claim, now = job.prepare_claim, job.clock.monotonic()
    if claim is not None and claim.holder != request.holder and now < claim.expires_at:
        return wire.PrepareReply(verdict="wait")
    job.prepare_claim = PrepareClaim(request.holder, now + PREPARE_TERMS * job.config.recovery.lease_seconds)
    return wire.PrepareReply(verdict="yours")


def prepare_commit(job: Job, request: wire.PrepareCommitRequest) -> wire.Empty:
    """Write the prepared inputs; the first commit wins, a later one must be equal."""
    _admit(job, request.holder)
    job.store.commit_prepared(request.prepared, now=job.clock.wall())
    job.prepare_claim = None
    job.touch(Topic.INPUTS, Topic.CAPTURE, Topic.WINDOWS)
    return wire.Empty()


def prepared(job: Job, request: wire.PreparedRequest) -> wire.PreparedReply:
    """The prepared inputs, if they are there."""
    return wire.PreparedReply(prepared=job.prepared())


def lease(job: Job, request: wire.LeaseRequest) -> wire.LeaseReply:
    """Lease the lowest group in need, if the store has room for it; the same `request_id` gives the same lease."""
    _admit(job, request.holder)
    _keep_claim(job, request.holder)
    repeated = job.store.granted(request.holder, request.request_id)
    if repeated is not None:
        return wire.LeaseReply(lease=repeated)
    if job.is_complete() or job.failed:
        return wire.LeaseReply(lease=None, finished=True)
    decision, need = look(job)
    if decision.kind != "lease" or need is None:
        return wire.LeaseReply(lease=None, paused=decision.reason)
    recovery = job.config.recovery
    granted = job.store.grant(
        LeaseGrant(
            holder=request.holder,
            request_id=request.request_id,
            group=need.group,
            lease_id=job.nonce(),
            token=LeaseToken(job.nonce()),
            randoms=tuple(job.nonce() for _ in range(job.facts.group_size)),
            reserved_bytes=need.estimated_bytes,
            term_seconds=recovery.lease_seconds,
            deadline_seconds=capture_deadline(recovery.capture_deadline_seconds, need.overruns),
        ),
        now=job.clock.wall(),
    )
    job.terms.granted(
        LiveLease(
            lease_id=granted.lease_id,
            holder=request.holder,
            group=granted.group,
            term_seconds=granted.term_seconds,
            deadline_seconds=granted.deadline_seconds,
        ),
        now=job.clock.monotonic(),
    )
    return wire.LeaseReply(lease=granted)


def renew(job: Job, request: wire.RenewRequest) -> wire.RenewReply:
    """Extend the named leases."""
    _admit(job, request.holder)
    _keep_claim(job, request.holder)
    return wire.RenewReply(alive=job.terms.renew(request.holder, request.lease_ids, now=job.clock.monotonic()))


def commit(job: Job, request: wire.CommitRequest) -> wire.CommitReply:
    """Make captured samples ready, guarded by the live lease."""
    accepted = job.store.commit_samples(
        request.holder, request.lease_id, request.token, request.refs, now=job.clock.wall()
    )
    _forget_ended(job, request.lease_id)
    job.touch(Topic.CAPTURE, Topic.WINDOWS)
    return wire.CommitReply(accepted=accepted)


def capture_fail(job: Job, request: wire.CaptureFailRequest) -> wire.Empty:
    """Dead-letter what is poison; the rest is in need again."""
    job.store.fail_capture(request.holder, request.lease_id, request.token, request.failures, now=job.clock.wall())
    _forget_ended(job, request.lease_id)
    job.look_at_gang()
    job.touch(Topic.CAPTURE, Topic.WINDOWS)
    return wire.Empty()


def return_leases(job: Job, request: wire.ReturnRequest) -> wire.Empty:
    """End the named leases of this holder."""
    held = job.terms.held_by(request.holder, request.lease_ids)
    if held:
        job.store.end_leases(held, reason="returned", now=job.clock.wall())
        job.terms.drop(held)
        job.touch(Topic.CAPTURE)
        job.wake_sweeper()
    return wire.Empty()


def _admit(job: Job, holder: wire.Holder) -> None:
    """Refuse a process that a newer one of its index has replaced. The store guards every write itself; this spares a
    stale process that only waits from waiting for ever."""
    newest = job.newest_holders.get(holder.index)
    if newest is not None and (holder.ordinal, holder.restart) < (newest.ordinal, newest.restart):
        raise Fenced(f"producer {holder.index} was replaced by ordinal {newest.ordinal}, restart {newest.restart}")


def _keep_claim(job: Job, holder: wire.Holder) -> None:
    claim = job.prepare_claim
    if claim is not None and claim.holder == holder:
        claim.expires_at = job.clock.monotonic() + PREPARE_TERMS * job.config.recovery.lease_seconds


def _forget_ended(job: Job, lease_id: str) -> None:
    """A lease ends in the store when all its members are settled; its term ends with it."""
    if all(lease.lease_id != lease_id for lease in job.store.live_leases()):
        job.terms.drop((lease_id,))
