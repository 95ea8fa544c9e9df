"""The single commit point of the in-memory store."""

from eyas_contract import wire
from eyas_contract.errors import Closed, Conflict, Fenced, UserError
from eyas_runtime.core.retention import RecordedCheckpoint, garbage_checkpoints
from eyas_runtime.metadata.fake.state import CheckpointRow, GangRow
from eyas_runtime.metadata.fake.training import FakeTraining


class FakeCheckpoints(FakeTraining):
    """The single commit point."""

    def known_checkpoints(self) -> tuple[wire.KnownCheckpoint, ...]:
        rows = [
            wire.KnownCheckpoint(
                directory=row.recorded.directory,
                step=row.recorded.step,
                store_epoch=row.recorded.store_epoch,
                manifest_digest=row.manifest_digest,
                receipt=row.receipt,
            )
            for row in self._checkpoints.values()
            if row.recorded.state == "committed" and row.garbage_of is None and row.manifest_digest is not None
        ]
        return tuple(sorted(rows, key=lambda row: (-row.store_epoch, -row.step, row.directory)))

    def commit_checkpoint(
        self, request: wire.CheckpointCommitRequest, receipt: str, *, keep: int, now: float
    ) -> tuple[str, ...]:
        if request.store_epoch != self._facts.store_epoch:
            raise Fenced(f"store epoch {request.store_epoch} is not {self._facts.store_epoch}")
        if self._is_recorded(request):
            return self._garbage_of(request.manifest_digest)
        gang = self._open_gang(request.incarnation)
        if gang.attempt != request.attempt:
            raise Fenced(f"incarnation {request.incarnation} is not of attempt {request.attempt}")
        self._assert_committable(gang, request)
        before = self._durable_step
        dead = {verdict.sequence for verdict in request.verdicts}
        for order in gang.orders:
            if order.kind == "train" and before < order.step <= request.step:
                live = [entry.sequence for entry in order.entries if entry.ref is not None]
                self._trained += [(order.step, s, gang.incarnation) for s in live if s not in dead]
        low = self._durable_end
        self._durable_step = request.step
        gang.acked_step = max(gang.acked_step, request.step)
        for verdict in request.verdicts:
            self._kill(verdict.sequence, verdict.reason or "poison", "rank")
        self._release_below(low, self._durable_end)
        self._checkpoints[request.directory] = CheckpointRow(
            recorded=RecordedCheckpoint(
                directory=request.directory,
                step=request.step,
                store_epoch=request.store_epoch,
                state="committed",
                best_directory="" if request.best is None else request.best.directory,
            ),
            manifest_digest=request.manifest_digest,
            incarnation=request.incarnation,
            receipt=receipt,
            weights_sha256=request.weights_sha256,
            best=request.best,
        )
        gang.verdicts = {step: told for step, told in gang.verdicts.items() if step > request.step}
        self._name_garbage(request, gang, keep)
        return self._garbage_of(request.manifest_digest)

    def _is_recorded(self, request: wire.CheckpointCommitRequest) -> bool:
        for row in self._checkpoints.values():
            if row.manifest_digest != request.manifest_digest:
                continue
            if row.recorded.state == "struck":
                raise Closed(f"checkpoint {row.recorded.directory} was struck: the ranks went back to before it")
            mine = (request.directory, request.step, request.incarnation)
            if (row.recorded.directory, row.recorded.step, row.incarnation) != mine:
                raise Conflict(f"manifest digest {request.manifest_digest[:80]} was committed by another")
            return True
        return False

    def _assert_committable(self, gang: GangRow, request: wire.CheckpointCommitRequest) -> None:
        durable = self._durable_step
        if request.step <= durable:
            raise Conflict(f"step {request.step} is not after the durable step {durable}")
        if not any(order.kind == "checkpoint" and order.step == request.step for order in gang.orders):
            raise Conflict(f"no checkpoint at step {request.step} was ordered")
        handed = {order.step: order.version for order in gang.orders if order.kind == "train" and order.step > durable}
        steps = range(durable + 1, request.step + 1)
        if any(handed.get(step) != self._windows.get(step) for step in steps):
            raise Closed(f"not all windows up to step {request.step} were handed to this incarnation")
        for verdict in request.verdicts:
            if verdict.step not in steps or verdict.sequence not in self._schedule.window(verdict.step):
                raise UserError(f"a verdict on sequence number {verdict.sequence} is not about windows since {durable}")
        told = {verdict.sequence for verdict in request.verdicts}
        for step in steps:
            for verdict in gang.verdicts.get(step, ()):
                if verdict.sequence not in told:
                    raise UserError(f"the manifest lacks the verdict on sequence number {verdict.sequence}")
        existing = self._checkpoints.get(request.directory)
        if existing is not None and existing.recorded.state != "listed":
            raise Conflict(f"directory {request.directory} belongs to another commit")

    def _name_garbage(self, request: wire.CheckpointCommitRequest, gang: GangRow, keep: int) -> None:
        rows = [row for row in self._checkpoints.values() if row.garbage_of is None]
        garbage = garbage_checkpoints(
            [row.recorded for row in rows],
            keep=keep,
            durable_step=request.step,
            in_use={request.directory, gang.checkpoint_directory},
        )
        for directory in garbage:
            self._checkpoints[directory].garbage_of = request.manifest_digest

    def _garbage_of(self, manifest_digest: str) -> tuple[str, ...]:
        rows = [row.recorded for row in self._checkpoints.values() if row.garbage_of == manifest_digest]
        return tuple(row.directory for row in sorted(rows, key=lambda row: (row.step, row.directory)))
