"""The one way back of the in-memory store."""

from eyas_contract import wire
from eyas_contract.errors import Transient, UserError
from eyas_contract.ids import Incarnation
from eyas_contract.states import Sample, SampleEvent
from eyas_runtime.checkpoint.names import parse_directory
from eyas_runtime.core import recovery
from eyas_runtime.core.retention import RecordedCheckpoint
from eyas_runtime.metadata import wording
from eyas_runtime.metadata.fake import incidents
from eyas_runtime.metadata.fake.checkpoints import FakeCheckpoints
from eyas_runtime.metadata.fake.state import CheckpointRow, GangRow


class FakeRecovery(FakeCheckpoints):
    """The one way back."""

    def reconcile_on_restart(
        self, request: wire.ReconcileRequest, incarnation: Incarnation, *, receipt_valid: bool, now: float
    ) -> wire.ReconcileReply:
        shown = request.checkpoint
        try:
            plan = recovery.decide(request, self._knowledge(request.process), receipt_valid=receipt_valid)
        except recovery.CheckpointsLost as error:
            self.fail_job(str(error), now=now)
            raise
        if plan.repeat:
            return self._reply(request)
        if plan.step and self._facts.evaluate_every and self._prepared is None:
            raise Transient(recovery.NOT_PREPARED, retry_after_seconds=0.5)
        self._assert_record(shown)
        self._close_former(request, plan, now=now)
        for directory in plan.struck:
            self._strike(directory)
            self._note(wording.checkpoint_struck(directory, step=plan.step, now=now))
        self._list_directories(request, plan, now=now)
        self._return_to(plan.step, shown, known=plan.known, now=now)
        self._fix_fingerprint(request, plan)
        self._attempt = request.attempt
        gang = GangRow(
            incarnation=incarnation,
            attempt=request.attempt,
            process=request.process,
            open=True,
            checkpoint_step=plan.step,
            checkpoint_directory=plan.directory,
            world_size=request.world_size,
            trained_step=plan.step,
            acked_step=plan.step,
        )
        self._gangs.append(gang)
        self._members[request.process] = (gang, 0)
        self._incidents = incidents.ranks_replaced(self._incidents, now)
        return self._reply(request)

    def fail_job(self, message: str, *, now: float) -> None:
        self._failure = self._failure or message
        self._note(wording.job_failed(message, now=now))

    # --- helpers -------------------------------------------------------------------------------------------------

    def _knowledge(self, process: str) -> recovery.Knowledge:
        gang = self._newest_gang()
        newest = None
        if gang is not None:
            newest = recovery.NewestGang(
                incarnation=gang.incarnation, attempt=gang.attempt, process=gang.process, open=gang.open
            )
        rows = self._checkpoints
        return recovery.Knowledge(
            job_uid=self._facts.job_uid,
            store_epoch=self._facts.store_epoch,
            attempt=self._attempt,
            newest=newest,
            former_process=process in self._members,
            checkpoints=tuple(row.recorded for row in rows.values()),
            digest_of={name: row.manifest_digest for name, row in rows.items() if row.manifest_digest is not None},
            inputs=None if self._prepared is None else self._prepared.inputs,
            total_steps=self._schedule.total_steps,
            allow_restart_from_zero=self._facts.allow_restart_from_zero,
        )

    def _reply(self, request: wire.ReconcileRequest) -> wire.ReconcileReply:
        gang = self._gangs[-1]
        row = self._checkpoints.get(gang.checkpoint_directory)
        shown = "" if request.checkpoint is None else request.checkpoint.receipt
        return wire.ReconcileReply(
            incarnation=gang.incarnation,
            store_epoch=self._facts.store_epoch,
            checkpoint_step=gang.checkpoint_step,
            checkpoint_directory=gang.checkpoint_directory,
            receipt=shown if row is None else row.receipt or shown,
            total_steps=self._schedule.total_steps,
        )

    def _assert_record(self, shown: wire.PresentedCheckpoint | None) -> None:
        end = 0 if shown is None else self._schedule.end_of(shown.step)
        if shown is not None and any(not 0 <= letter.sequence < end for letter in shown.state.dead_letters):
            raise UserError(f"the record of step {shown.step} has a dead letter beyond it")

    def _close_former(self, request: wire.ReconcileRequest, plan: recovery.Plan, *, now: float) -> None:
        former = self._newest_gang()
        if former is None:
            return
        if former.open and former.ending:
            former.open = False
        elif former.open:
            message = wording.replaced_by(request.attempt, former_attempt=former.attempt)
            self._close_gang(former, klass="GangReplaced", message=message, now=now)
        replayed = recovery.windows_replayed(trained_step=former.acked_step, checkpoint_step=plan.step)
        self._incidents = incidents.replayed(self._incidents, replayed)

    def _strike(self, directory: str) -> None:
        row = self._checkpoints[directory]
        row.recorded = RecordedCheckpoint(
            directory=directory, step=row.recorded.step, store_epoch=row.recorded.store_epoch, state="struck"
        )

    def _list_directories(self, request: wire.ReconcileRequest, plan: recovery.Plan, *, now: float) -> None:
        for directory in sorted({*request.listed, *request.refused}):
            name = parse_directory(directory)
            if name is None or directory == plan.directory:
                continue
            listed = RecordedCheckpoint(directory=directory, step=name.step, store_epoch=0, state="listed")
            self._checkpoints.setdefault(directory, CheckpointRow(recorded=listed)).garbage_of = None
            if directory in request.refused or name.step > plan.step:
                self._strike(directory)
        if request.refused:
            self._note(wording.checkpoints_refused(request.refused, step=plan.step, now=now))

    def _return_to(self, step: int, shown: wire.PresentedCheckpoint | None, *, known: bool, now: float) -> None:
        self._durable_step, end = step, self._schedule.end_of(step)
        letters = {} if shown is None else {letter.sequence: letter for letter in shown.state.dead_letters}
        for sequence, row in sorted(self._samples.items()):
            above = sequence >= end
            if row.state == Sample.RELEASED and above:
                self._move(sequence, SampleEvent.RESURRECT)
            elif row.state == Sample.DEAD and (
                (above and row.source == "rank")
                or (not above and not known and row.source != "prepare" and sequence not in letters)
            ):
                self._move(sequence, SampleEvent.REVIVE)
        for letter in letters.values():
            self._kill(letter.sequence, letter.reason or "dead letter", letter.source)
        self._release_below(0, end)
        self._trained = [row for row in self._trained if row[0] <= step]
        if shown is not None and not known:
            self._restore(shown, end, now=now)

    def _restore(self, shown: wire.PresentedCheckpoint, end: int, *, now: float) -> None:
        state = shown.state
        self._generation = max(self._generation, state.generation_floor) + recovery.GENERATION_JUMP
        floor = self._commits
        for sequence in range(end):
            row = self._row(sequence)
            if (row.state == Sample.RELEASED or row.source == "rank") and row.commit_number is None:
                row.commit_number = floor + sequence + 1
                self._commits += 1
        recaptured = max(0, state.samples_recaptured - self._recaptured)
        self._recaptured += recaptured
        self._commits += recaptured
        self._capture_fingerprint = self._capture_fingerprint or state.capture_fingerprint
        if state.training_fingerprint and not self._training_fingerprint:
            self._training_fingerprint, self._world_size = state.training_fingerprint, state.world_size
        for reason in state.inexact_reasons:
            self._say_inexact(reason)
        if state.inputs is not None and self._prepared is None:
            self._expected_inputs = state.inputs
        self._trained = [
            (self._schedule.step_of(sequence), sequence, "")
            for sequence in range(end)
            if self._state(sequence) == Sample.RELEASED
        ]
        best = None if shown.evaluation is None else shown.evaluation.best
        self._checkpoints[shown.directory] = CheckpointRow(
            recorded=RecordedCheckpoint(
                directory=shown.directory,
                step=shown.step,
                store_epoch=shown.store_epoch,
                state="committed",
                best_directory="" if best is None else best.directory,
            ),
            manifest_digest=shown.manifest_digest,
            incarnation=shown.incarnation,
            receipt=shown.receipt,
            best=best,
        )
        for point in () if shown.evaluation is None else shown.evaluation.points:
            self._metrics.setdefault(point.step, {"eval_loss": point.eval_loss})
        self._note(wording.metadata_restored(shown, now=now))

    def _fix_fingerprint(self, request: wire.ReconcileRequest, plan: recovery.Plan) -> None:
        fingerprint, world_size = self._training_fingerprint, self._world_size
        if plan.step == 0 or not fingerprint:
            self._training_fingerprint, self._world_size = request.fingerprint.digest, request.world_size
            return
        for reason in wording.inexact_computations(request, fingerprint=fingerprint, world_size=world_size):
            self._say_inexact(reason)
