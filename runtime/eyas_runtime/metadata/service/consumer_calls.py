"""What ranks and their supervisors ask: reconcile, join, order, ack, lost, refs, heartbeat, checkpoints, exits.

All run in the store's thread.
"""

from eyas_contract import wire
from eyas_contract.errors import Closed, Conflict, Fenced, UserError
from eyas_contract.ids import Incarnation
from eyas_runtime.core.recovery import CheckpointsLost
from eyas_runtime.metadata.port import GangState
from eyas_runtime.metadata.receipts import ReceiptFacts
from eyas_runtime.metadata.service import orders
from eyas_runtime.metadata.service.job import Job
from eyas_runtime.metadata.service.pressure import look
from eyas_runtime.metadata.service.waiting import Topic


def checkpoints(job: Job, request: wire.Empty) -> wire.CheckpointsReply:
    """All recorded checkpoints."""
    return wire.CheckpointsReply(known=job.store.known_checkpoints())


def reconcile(job: Job, request: wire.ReconcileRequest) -> wire.ReconcileReply:
    """The one way back: fence what was before and open a new incarnation."""
    shown = request.checkpoint
    if shown is None and job.recorded_step > 0 and not job.facts.allow_restart_from_zero:
        job.fail(
            f"CheckpointsLost: step {job.recorded_step} was durable, but no checkpoint can be loaded; restore the "
            "checkpoint volume or set training.checkpoint.allowRestartFromZero"
        )
    before = job.store.gang()
    valid = shown is not None and job.is_own_receipt(_receipt_facts(job, shown), shown.receipt)
    try:
        reply = job.store.reconcile_on_restart(
            request, Incarnation(job.nonce()), receipt_valid=valid, now=job.clock.wall()
        )
    except CheckpointsLost as error:
        job.fail(str(error))
    if reply.incarnation != before.incarnation:
        job.work.gang_opened(checkpoint_step=reply.checkpoint_step, now=job.clock.monotonic())
    job.look_at_gang()
    job.wake_sweeper()
    return reply


def _receipt_facts(job: Job, shown: wire.PresentedCheckpoint) -> ReceiptFacts:
    return ReceiptFacts(
        job_uid=job.facts.job_uid,
        store_epoch=shown.store_epoch,
        attempt=shown.attempt,
        incarnation=shown.incarnation,
        step=shown.step,
        manifest_digest=shown.manifest_digest,
    )


def join(job: Job, request: wire.JoinRequest) -> wire.JoinReply:
    """Tell a rank which incarnation it belongs to."""
    gang = job.store.join(request.attempt, request.rank, request.process, now=job.clock.wall())
    job.look_at_gang()
    if not gang.open:
        return wire.JoinReply(incarnation=None)
    return wire.JoinReply(
        incarnation=gang.incarnation,
        checkpoint_step=gang.checkpoint_step,
        checkpoint_directory=gang.checkpoint_directory,
    )


def order(job: Job, request: wire.OrderRequest) -> wire.OrderReply:
    """The `ordinal`-th order of this incarnation: the stored one, or a new one when something can be ordered."""
    stored = job.store.order(request.incarnation, request.ordinal)
    if stored is not None:
        return wire.OrderReply(order=stored)
    gang = _open_gang(job, request.incarnation)
    if request.ordinal != gang.orders_given:
        raise Conflict(f"order {request.ordinal} was asked for, but {gang.orders_given} have been given")
    decision = next_decision(job, gang)
    if decision is None:
        return wire.OrderReply(order=None)
    return wire.OrderReply(order=_give(job, request, decision))


def next_decision(job: Job, gang: GangState) -> orders.Decision | None:
    """What could be ordered now; looks at the pressure on the store when the next window is not ready."""
    total = job.total_steps()
    part = job.evaluation_part(gang.ordered_step)
    ends_round = part is not None and part.is_last
    if ends_round and gang.acked_step < gang.ordered_step:
        return None
    waiting = gang.ordered_step < total
    ready = waiting and job.store.window_ready(gang.ordered_step + 1)
    if waiting and not ready:
        look(job)
    return orders.decide(
        gang,
        total_steps=total,
        wishes=orders.Wishes(
            every_steps=job.config.training.checkpoint.every_steps,
            drain=job.draining_attempt == gang.attempt,
            pressure=job.pressure and not ready,
            trained_since_durable=job.training_step(gang.ordered_step) - job.training_step(gang.durable_step),
            evaluating=part is not None,
            best=ends_round and job.is_best(gang.ordered_step),
        ),
        window_ready=ready,
    )


def _give(job: Job, request: wire.OrderRequest, decision: orders.Decision) -> wire.Order:
    incarnation, ordinal, now = request.incarnation, request.ordinal, job.clock.wall()
    if isinstance(decision, orders.Train):
        return job.store.give_train_order(incarnation, ordinal, decision.step, now=now)
    if decision.reason == "drain":
        job.draining_attempt = 0
    if isinstance(decision, orders.Checkpoint):
        return job.store.give_checkpoint_order(
            incarnation, ordinal, decision.step, last=decision.last, reason=decision.reason, now=now
        )
    return job.store.give_stop_order(incarnation, ordinal, decision.step, reason=decision.reason, now=now)


def ack(job: Job, request: wire.AckRequest) -> wire.Empty:
    """Progress of the ranks; never durability."""
    job.store.record_train_ack(request, now=job.clock.wall())
    now, gang = job.clock.monotonic(), job.store.gang()
    job.hang.acked(request.incarnation, request.metrics.get("step_seconds"), now=now)
    job.work.stepped(request.step, request.metrics.get("step_seconds"), now=now)
    job.progress.at(gang.acked_step, gang.durable_step, now=now)
    if job.evaluation_part(request.step) is not None:
        job.touch(Topic.WINDOWS)
    return wire.Empty()


def lost(job: Job, request: wire.LostRequest) -> wire.Empty:
    """Samples whose bytes are gone or wrong are captured again."""
    if job.store.report_lost(request.incarnation, request.samples, now=job.clock.wall()):
        job.touch(Topic.CAPTURE, Topic.WINDOWS)
        job.want_sweep()
    return wire.Empty()


def refs(job: Job, request: wire.RefsRequest) -> wire.RefsReply:
    """Present refs of places of a sealed window."""
    return job.store.current_refs(request.incarnation, request.step, request.version, request.sequences)


def heartbeat(job: Job, request: wire.HeartbeatRequest) -> wire.Empty:
    """A rank's counter of work, for the hang lease."""
    gang = _open_gang(job, request.incarnation)
    if not 0 <= request.rank < gang.world_size:
        raise UserError(f"rank {request.rank} is not one of the {gang.world_size} ranks of this incarnation")
    job.hang.beat(request.incarnation, request.rank, request.counter, now=job.clock.monotonic())
    return wire.Empty()


def checkpoint_commit(job: Job, request: wire.CheckpointCommitRequest) -> wire.CheckpointCommitReply:
    """The single commit point. The receipt is computed before and stored in the same transaction."""
    if request.store_epoch != job.facts.store_epoch:
        raise Fenced(f"store epoch {request.store_epoch} is not {job.facts.store_epoch}, the one of this service")
    receipt = job.receipt_of(
        ReceiptFacts(
            job_uid=job.facts.job_uid,
            store_epoch=request.store_epoch,
            attempt=request.attempt,
            incarnation=request.incarnation,
            step=request.step,
            manifest_digest=request.manifest_digest,
        )
    )
    garbage = job.store.commit_checkpoint(
        request, receipt, keep=job.config.training.checkpoint.keep, now=job.clock.wall()
    )
    gang = job.store.gang()
    job.progress.at(gang.acked_step, gang.durable_step, now=job.clock.monotonic())
    job.touch(Topic.CAPTURE, Topic.WINDOWS)
    job.wake_sweeper()
    return wire.CheckpointCommitReply(receipt=receipt, garbage=garbage)


def exit_(job: Job, request: wire.ExitRequest) -> wire.Empty:
    """A rank exited: its incarnation, if open, is closed."""
    job.store.report_exit(request, now=job.clock.wall())
    job.look_at_gang()
    return wire.Empty()


def watch(job: Job, request: wire.WatchRequest) -> wire.WatchReply:
    """Processes of closed incarnations, to be killed."""
    closed = job.store.closed_processes(request.attempt, request.processes)
    gang = job.store.gang()
    if gang.incarnation is not None and gang.attempt == request.attempt:
        job.hang.heard(gang.incarnation)
    return wire.WatchReply(closed=closed)


def drain(job: Job, request: wire.DrainRequest) -> wire.Empty:
    """Name a stop boundary at the next order; a gang that has its last order already is left alone."""
    gang = job.store.gang()
    if request.attempt < gang.attempt:
        raise Fenced(f"attempt {request.attempt} is over: attempt {gang.attempt} has begun")
    ending = gang.open and gang.ending
    if not ending and job.draining_attempt != request.attempt:
        job.draining_attempt = request.attempt
        job.touch(Topic.WINDOWS)
    return wire.Empty()


def _open_gang(job: Job, incarnation: Incarnation) -> GangState:
    gang = job.store.gang()
    if gang.incarnation != incarnation or not gang.open:
        raise Closed(f"incarnation {incarnation} is closed")
    return gang
