"""Theme "checkpoints" of the SQLite store: the single commit point.

`commit_checkpoint` is the only place where a step becomes durable: it acks every window up to it, writes the verdicts
of the ranks, fills the ledger of promise 3 from what was really handed out, and releases what the checkpoint contains.
"""

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Closed, Conflict, Fenced, UserError
from eyas_runtime.core.retention import RecordedCheckpoint, garbage_checkpoints
from eyas_runtime.metadata.sqlite.base import GangRow
from eyas_runtime.metadata.sqlite.ledger import Ledger
from eyas_runtime.metadata.sqlite.training import Training


class Checkpoints(Training, Ledger):
    """What was committed."""

    def known_checkpoints(self) -> tuple[wire.KnownCheckpoint, ...]:
        return tuple(
            wire.KnownCheckpoint(
                directory=directory,
                step=step,
                store_epoch=epoch,
                manifest_digest=digest,
                receipt=receipt,
            )
            for directory, step, epoch, state, digest, receipt, _ in self._db.all("checkpoints")
            if state == "committed"
        )

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
        durable = self._progress().durable_step
        self._assert_committable(gang, request, durable)
        with self._db.transaction():
            self._choose((verdict.sequence, verdict.reason or "poison", "rank") for verdict in request.verdicts)
            self._db.run("add_trained", number=gang.number, after=durable, step=request.step)
            self._db.run("set_durable_step", step=request.step)
            self._db.run("raise_ack", number=gang.number, step=request.step)
            end = self._schedule.end_of(request.step)
            self._kill_chosen(durable_end=end)
            clean = self._is_clean_between(gang, durable, request.step)
            self._release_below(low=self._schedule.end_of(durable), high=end)
            self._db.run(
                "set_checkpoint",
                directory=request.directory,
                step=request.step,
                store_epoch=request.store_epoch,
                attempt=request.attempt,
                incarnation=request.incarnation,
                manifest_digest=request.manifest_digest,
                receipt=receipt,
                weights_sha256=request.weights_sha256,
                nbytes=request.nbytes,
                best=best_text(request.best),
            )
            self._db.run("drop_order_bodies", number=gang.number, step=request.step)
            self._db.run("drop_acks", number=gang.number, step=request.step)
            self._name_garbage(request, gang, keep)
        self._ledger_moved(clean=clean)
        return self._garbage_of(request.manifest_digest)

    # --- helpers -------------------------------------------------------------------------------------------------

    def _is_recorded(self, request: wire.CheckpointCommitRequest) -> bool:
        """True for a repeat of a commit that stands; raises when its time is over."""
        row = self._db.one("checkpoint_of_digest", manifest_digest=request.manifest_digest)
        if row is None:
            return False
        directory, step, incarnation, state, _ = row
        if state == "struck":
            raise Closed(f"checkpoint {directory} was struck: the ranks went back to before it")
        if (directory, step, incarnation) != (request.directory, request.step, request.incarnation):
            raise Conflict(f"manifest digest {request.manifest_digest[:80]} was committed as {directory}")
        return True

    def _assert_committable(self, gang: GangRow, request: wire.CheckpointCommitRequest, durable: int) -> None:
        if request.step <= durable:
            raise Conflict(f"step {request.step} is not after the durable step {durable}")
        if not self._db.integer("checkpoint_order_of_step", number=gang.number, step=request.step):
            raise Conflict(f"no checkpoint at step {request.step} was ordered")
        handed = self._db.integer("current_train_orders", number=gang.number, after=durable, step=request.step)
        if handed != request.step - durable:
            raise Closed(f"{request.step - durable} windows lead to step {request.step}, but {handed} were handed out")
        low, high = self._schedule.end_of(durable), self._schedule.end_of(request.step)
        told = set()
        for verdict in request.verdicts:
            if not low <= verdict.sequence < high or self._schedule.step_of(verdict.sequence) != verdict.step:
                raise UserError(f"a verdict on sequence number {verdict.sequence} is not about windows since {durable}")
            told.add(verdict.sequence)
        for row in self._db.all("acked_verdicts", number=gang.number, after=durable, step=request.step):
            for verdict in msgspec.json.decode(row[0], type=tuple[wire.Verdict, ...]):
                if verdict.sequence not in told:
                    raise UserError(f"the manifest lacks the verdict on sequence number {verdict.sequence}")
        existing = self._db.one("checkpoint_in", directory=request.directory)
        if existing is not None and existing[0] != "listed":
            raise Conflict(f"directory {request.directory} belongs to another commit")

    def _name_garbage(self, request: wire.CheckpointCommitRequest, gang: GangRow, keep: int) -> None:
        garbage = garbage_checkpoints(
            self._recorded("checkpoints"),
            keep=keep,
            durable_step=request.step,
            in_use={request.directory, gang.checkpoint_directory},
        )
        for directory in garbage:
            self._db.run("name_garbage", directory=directory, manifest_digest=request.manifest_digest)

    def _garbage_of(self, manifest_digest: str) -> tuple[str, ...]:
        return tuple(row[0] for row in self._db.all("garbage_of", manifest_digest=manifest_digest))

    def _recorded(self, query: str) -> tuple[RecordedCheckpoint, ...]:
        return tuple(
            msgspec.convert(
                {
                    "directory": row[0],
                    "step": row[1],
                    "store_epoch": row[2],
                    "state": row[3],
                    "best_directory": "" if row[6] is None else best_of(row[6]).directory,
                },
                type=RecordedCheckpoint,
            )
            for row in self._db.all(query)
        )


def best_text(best: wire.Best | None) -> str | None:
    """As a row keeps it."""
    return None if best is None else msgspec.json.encode(best).decode()


def best_of(text: str) -> wire.Best:
    """What a row keeps."""
    return msgspec.json.decode(text, type=wire.Best)
