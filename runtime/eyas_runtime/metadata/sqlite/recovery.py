"""Theme "recovery" of the SQLite store: the one way back.

`reconcile_on_restart` is the only place where attempt, incarnation and durable step are set, also downwards. What it
does is decided by `core.recovery`; here whole ranges of samples move by set-based statements, so that a million refs
take seconds and bounded memory. A database that knows nothing is no special case: it merely has no rows.
"""

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Conflict, Transient, UserError
from eyas_contract.ids import SEQUENCE_MAX, Incarnation
from eyas_contract.states import Sample, SampleEvent
from eyas_runtime.checkpoint.names import parse_directory
from eyas_runtime.core import recovery
from eyas_runtime.metadata import wording
from eyas_runtime.metadata.sqlite.checkpoints import Checkpoints, best_text


class Recovery(Checkpoints):
    """The one way back."""

    def reconcile_on_restart(
        self, request: wire.ReconcileRequest, incarnation: Incarnation, *, receipt_valid: bool, now: float
    ) -> wire.ReconcileReply:
        try:
            plan = recovery.decide(request, self._knowledge(request.process), receipt_valid=receipt_valid)
        except recovery.CheckpointsLost as error:
            self.fail_job(str(error), now=now)
            raise
        if plan.repeat:
            return self._reply(request)
        if plan.step and self._facts.evaluate_every and self._prepared is None:
            raise Transient(recovery.NOT_PREPARED, retry_after_seconds=0.5)
        with self._db.transaction():
            self._close_former(request, plan, now=now)
            for directory in plan.struck:
                self._strike(directory, plan, now=now)
            self._list_directories(request, plan, now=now)
            self._return_to(plan.step, request.checkpoint, known=plan.known, now=now)
            self._fix_fingerprint(request, plan)
            self._db.run("set_attempt", attempt=request.attempt)
            self._db.run(
                "add_incarnation",
                incarnation=incarnation,
                attempt=request.attempt,
                process=request.process,
                step=plan.step,
                directory=plan.directory,
                world_size=request.world_size,
                now=now,
            )
            self._db.run("add_member", process=request.process, incarnation=incarnation, rank=0)
            self._db.run("ranks_replaced", now=now)
        self._ledger_moved(clean=plan.known or plan.step == 0)
        return self._reply(request)

    def fail_job(self, message: str, *, now: float) -> None:
        with self._db.transaction():
            self._db.run("fail_job", message=message[:4000])
            self._note(wording.job_failed(message, now=now))

    # --- helpers -------------------------------------------------------------------------------------------------

    def _knowledge(self, process: str) -> recovery.Knowledge:
        gang, member = self._newest_gang(), self._db.one("member", process=process)
        newest = None
        if gang is not None:
            newest = recovery.NewestGang(
                incarnation=gang.incarnation, attempt=gang.attempt, process=gang.process, open=gang.open
            )
        return recovery.Knowledge(
            job_uid=self._facts.job_uid,
            store_epoch=self._facts.store_epoch,
            attempt=self._progress().attempt,
            newest=newest,
            former_process=member is not None,
            checkpoints=self._recorded("all_checkpoints"),
            digest_of={row[0]: row[4] for row in self._db.all("all_checkpoints") if row[4] is not None},
            inputs=None if self._prepared is None else self._prepared.inputs,
            total_steps=self._schedule.total_steps,
            allow_restart_from_zero=self._facts.allow_restart_from_zero,
        )

    def _reply(self, request: wire.ReconcileRequest) -> wire.ReconcileReply:
        gang = self._newest_gang()
        if gang is None:
            raise Conflict("no incarnation stands")
        receipt = "" if request.checkpoint is None else request.checkpoint.receipt
        for row in self._db.all("checkpoints"):
            if row[0] == gang.checkpoint_directory and row[5]:
                receipt = row[5]
        return wire.ReconcileReply(
            incarnation=gang.incarnation,
            store_epoch=self._facts.store_epoch,
            checkpoint_step=gang.checkpoint_step,
            checkpoint_directory=gang.checkpoint_directory,
            receipt=receipt,
            total_steps=self._schedule.total_steps,
        )

    def _close_former(self, request: wire.ReconcileRequest, plan: recovery.Plan, *, now: float) -> None:
        former = self._newest_gang()
        if former is None:
            return
        if former.open and former.ending:
            self._db.run("close_incarnations")
        elif former.open:
            message = wording.replaced_by(request.attempt, former_attempt=former.attempt)
            self._close_gang(former, klass="GangReplaced", message=message, now=now)
        replayed = recovery.windows_replayed(trained_step=former.acked_step, checkpoint_step=plan.step)
        self._db.run("note_replay", windows=replayed)
        # Nobody may ask for them any more, and the new incarnation has its own.
        self._db.run("drop_orders")
        self._db.run("drop_acks", number=former.number + 1, step=0)

    def _strike(self, directory: str, plan: recovery.Plan, *, now: float) -> None:
        self._db.run("strike_checkpoint", directory=directory)
        self._note(wording.checkpoint_struck(directory, step=plan.step, now=now))

    def _list_directories(self, request: wire.ReconcileRequest, plan: recovery.Plan, *, now: float) -> None:
        """Record what lies on the volume: strangers become garbage in the end, what failed never comes back."""
        for directory in sorted({*request.listed, *request.refused}):
            name = parse_directory(directory)
            if name is None or directory == plan.directory:
                continue
            self._db.run("list_checkpoint", directory=directory, step=name.step, attempt=name.attempt)
            self._db.run("unname_garbage", directory=directory)
            if directory in request.refused or name.step > plan.step:
                self._db.run("strike_checkpoint", directory=directory)
        if request.refused:
            self._note(wording.checkpoints_refused(request.refused, step=plan.step, now=now))

    def _return_to(self, step: int, shown: wire.PresentedCheckpoint | None, *, known: bool, now: float) -> None:
        """Set the durable step, take the state as of it, and give back every sample above it.

        Where the commit is on record, rows of windows up to it are right as they are; otherwise the checkpoint's record
        decides about them, and rows that are missing are made.
        """
        end = self._schedule.end_of(step)
        self._choose_dead(shown, end)
        if known:
            self._db.run("choose_dead", high=end)
        for event, origin, statement, low, high in (
            (SampleEvent.RESURRECT, Sample.RELEASED, "move_range", end, SEQUENCE_MAX),
            (SampleEvent.REVIVE, Sample.DEAD, "move_range_of_ranks", end, SEQUENCE_MAX),
            (SampleEvent.REVIVE, Sample.DEAD, "move_range_unless_chosen", 0, end),
        ):
            for start, stop in self._chunks(low, high):
                self._move(event, origin, statement, low=start, high=stop)
        if not known and self._db.integer("rows_in_range", low=0, high=end) < end:
            self._add_to_tally(Sample.RELEASED, self._db.run("add_released_range", low=0, high=end))
        self._db.run("set_durable_step", step=step)
        self._kill_chosen(durable_end=end)
        self._release_below(low=0, high=end)
        self._db.run("drop_trained_above", step=step)
        if shown is not None and not known:
            self._restore(shown, end, now=now)

    def _choose_dead(self, shown: wire.PresentedCheckpoint | None, end: int) -> None:
        letters = () if shown is None else shown.state.dead_letters
        for letter in letters:
            if not 0 <= letter.sequence < end:
                raise UserError(f"the record of step {end} has a dead letter at sequence number {letter.sequence}")
        self._choose((letter.sequence, letter.reason or "dead letter", letter.source) for letter in letters)

    def _restore(self, shown: wire.PresentedCheckpoint, end: int, *, now: float) -> None:
        """Take from the record what only our lost rows knew."""
        progress, state = self._progress(), shown.state
        floor = max(progress.generation, state.generation_floor) + recovery.GENERATION_JUMP
        self._db.run("set_generation", generation=floor)
        self._db.run("set_frontier", group=self._schedule.group_of(end))
        numbered = self._db.run("number_restored", commits=progress.commits, high=end)
        recaptured = max(0, state.samples_recaptured - progress.recaptured)
        self._db.run("add_commits", commits=numbered + recaptured, recaptured=recaptured, drift=0)
        if state.capture_fingerprint:
            self._db.run("set_capture_fingerprint", fingerprint=state.capture_fingerprint)
        if state.training_fingerprint and not progress.training_fingerprint:
            self._db.run(
                "set_training_fingerprint", fingerprint=state.training_fingerprint, world_size=state.world_size
            )
        for reason in state.inexact_reasons:
            self._inexact(reason)
        if state.inputs is not None and self._prepared is None:
            self._db.run("set_expected_inputs", inputs=msgspec.json.encode(state.inputs).decode())
        self._db.run("drop_trained")
        self._restore_ledger(end)
        self._db.run(
            "set_checkpoint",
            directory=shown.directory,
            step=shown.step,
            store_epoch=shown.store_epoch,
            attempt=shown.attempt,
            incarnation=shown.incarnation,
            manifest_digest=shown.manifest_digest,
            receipt=shown.receipt,
            weights_sha256="",
            nbytes=0,
            best=best_text(None if shown.evaluation is None else shown.evaluation.best),
        )
        for point in () if shown.evaluation is None else shown.evaluation.points:
            self._db.run(
                "restore_metrics", step=point.step, body=msgspec.json.encode({"eval_loss": point.eval_loss}).decode()
            )
        self._note(wording.metadata_restored(shown, now=now))

    def _restore_ledger(self, end: int) -> None:
        """The record says that all live samples below `end` were trained once, each in its window."""
        schedule = self._schedule
        runs = schedule.rounds.runs() if schedule.prompts else iter((schedule.rounds.run_of_window(1),))
        for run in runs:
            high = min(run.sequences.stop, end) if schedule.prompts else end
            if run.sequences.start >= end:
                break
            self._db.run(
                "add_trained_restored",
                step=run.first_window,
                low=run.sequences.start,
                high=high,
                window_size=schedule.window_size,
            )

    def _fix_fingerprint(self, request: wire.ReconcileRequest, plan: recovery.Plan) -> None:
        """The line's first start fixes what its steps are computed on; any other makes the result inexact."""
        fingerprint, world_size = self._progress().training_fingerprint, self._progress().world_size
        if plan.step == 0 or not fingerprint:
            digest = request.fingerprint.digest
            self._db.run("set_training_fingerprint", fingerprint=digest, world_size=request.world_size)
            return
        for reason in wording.inexact_computations(request, fingerprint=fingerprint, world_size=world_size):
            self._inexact(reason)
