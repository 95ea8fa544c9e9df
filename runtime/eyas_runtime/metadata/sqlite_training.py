"""Theme "training" of the SQLite store: the life of one incarnation, its orders, its acks, its losses."""

import math
from collections.abc import Sequence
from typing import Final, Literal, cast, get_args

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Bug, Closed, Conflict, Fenced, UserError
from eyas_contract.exits import Exit
from eyas_contract.ids import Incarnation
from eyas_contract.states import Sample
from eyas_runtime.metadata.port import GangState
from eyas_runtime.metadata.sqlite_base import GangRow
from eyas_runtime.metadata.sqlite_needs import Needs

_Reason = Literal["", "schedule", "pressure", "drain", "complete"]
_CLEAN_CODES: Final = (Exit.DONE, Exit.TEMPORARY)
METRICS_MAX: Final = 500


class Gang(Needs):
    """Members of the gang: who is in, who left, and whether they may go on."""

    def gang(self) -> GangState:
        gang, progress = self._newest_gang(), self._progress()
        sealed = max(self._db.integer("sealed_step"), progress.durable_step)
        if gang is None:
            return GangState(
                attempt=progress.attempt,
                incarnation=None,
                open=False,
                checkpoint_step=progress.durable_step,
                checkpoint_directory="",
                world_size=0,
                orders_given=0,
                sealed_step=sealed,
                acked_step=progress.durable_step,
                durable_step=progress.durable_step,
                checkpoint_ordered_step=0,
                ordered_step=progress.durable_step,
                ending=False,
            )
        ordered = gang.ordered_checkpoint_step
        return GangState(
            attempt=progress.attempt,
            incarnation=gang.incarnation,
            open=gang.open,
            checkpoint_step=gang.checkpoint_step,
            checkpoint_directory=gang.checkpoint_directory,
            world_size=gang.world_size,
            orders_given=gang.orders_given,
            sealed_step=sealed,
            acked_step=gang.acked_step,
            durable_step=progress.durable_step,
            checkpoint_ordered_step=ordered if gang.open and ordered > progress.durable_step else 0,
            ordered_step=gang.trained_step,
            ending=bool(gang.ending),
        )

    def join(self, attempt: int, rank: int, process: str, *, now: float) -> GangState:
        self._assert_attempt(attempt)
        member = self._db.one("member", process=process)
        if member is not None and member[1] != "open":
            raise Closed(f"incarnation {member[0]!s} of this process is closed")
        gang = self._newest_gang()
        if gang is None or not gang.open or gang.attempt != attempt:
            return msgspec.structs.replace(self.gang(), incarnation=None, open=False)
        if not 1 <= rank < gang.world_size:
            raise UserError(f"rank {rank} cannot join: ranks of this gang are 1..{gang.world_size - 1}")
        if member is not None:
            return self.gang()
        before = self._db.one("member_of_rank", number=gang.number, rank=rank)
        with self._db.transaction():
            if before is None:
                self._db.run("add_member", process=process, incarnation=gang.incarnation, rank=rank)
            else:
                message = f"rank {rank} was started again while its gang was running"
                self._close_gang(gang, klass="ChildExited", message=message, now=now)
        state = self.gang()
        return state if before is None else msgspec.structs.replace(state, incarnation=None)

    def close_incarnation(self, incarnation: Incarnation, *, klass: str, message: str, now: float) -> None:
        gang = self._newest_gang()
        if gang is None or gang.incarnation != incarnation or not gang.open:
            return
        with self._db.transaction():
            self._close_gang(gang, klass=klass, message=message, now=now)

    def report_exit(self, request: wire.ExitRequest, *, now: float) -> None:
        self._assert_attempt(request.attempt)
        gang, member = self._newest_gang(), self._db.one("member", process=request.process)
        if gang is None or not gang.open or member is None or member[0] != gang.incarnation:
            return
        if request.code in _CLEAN_CODES and gang.ending:
            return
        how = f"signal {-request.code}" if request.code < 0 else f"code {request.code}"
        message = f"rank {request.rank} ended with {how}{': ' if request.reason else ''}{request.reason}"
        with self._db.transaction():
            self._close_gang(gang, klass="ChildExited", message=message, now=now)

    def closed_processes(self, attempt: int, processes: Sequence[str]) -> tuple[str, ...]:
        self._assert_attempt(attempt)
        rows = ((process, self._db.one("member", process=process)) for process in processes)
        return tuple(process for process, row in rows if row is not None and row[1] == "closed")

    def _assert_attempt(self, attempt: int) -> None:
        newest = self._progress().attempt
        if attempt < newest:
            raise Fenced(f"attempt {attempt} is over: attempt {newest} has begun")


class Orders(Gang):
    """What rank 0 is told to do next; stored, so that a repeat gets the same answer."""

    def order(self, incarnation: Incarnation, ordinal: int) -> wire.Order | None:
        gang = self._open_gang(incarnation)
        return self._stored_order(gang, ordinal)

    def window_ready(self, step: int) -> bool:
        places = self._schedule.window(step)
        if step < 1 or not places:
            return False
        if not self._unready(places):
            return True
        if not self._facts.retain_objects:
            return False
        with self._db.transaction():
            self._attach_range(places)
        return not self._unready(places)

    def give_train_order(self, incarnation: Incarnation, ordinal: int, step: int, *, now: float) -> wire.Order:
        gang = self._open_gang(incarnation)
        stored = self._repeat(gang, ordinal, "train", step)
        if stored is not None:
            return stored
        if step != gang.trained_step + 1:
            raise Conflict(f"after window {gang.trained_step} comes {gang.trained_step + 1}, not {step}")
        if not self.window_ready(step):
            raise Conflict(f"window {step} is not ready")
        with self._db.transaction():
            self._db.run("seal_window", step=step)
            version = self._db.integer("window", step=step)
            order = wire.Order(
                ordinal=ordinal,
                kind="train",
                step=step,
                version=version,
                entries=self._entries(self._schedule.window(step)),
                prefetch=tuple(e.ref for e in self._entries(self._schedule.window(step + 1)) if e.ref is not None),
            )
            self._store_order(gang, order)
        return order

    def give_checkpoint_order(
        self, incarnation: Incarnation, ordinal: int, step: int, *, last: bool, reason: str, now: float
    ) -> wire.Order:
        gang = self._open_gang(incarnation)
        stored = self._repeat(gang, ordinal, "checkpoint", step)
        if stored is not None:
            return stored
        self._assert_boundary(gang, step)
        if step <= self._progress().durable_step:
            raise Conflict(f"step {step} is durable already")
        order = wire.Order(
            ordinal=ordinal,
            kind="checkpoint",
            step=step,
            last=last,
            reason=_reason(reason),
            state=self._record(step),
        )
        with self._db.transaction():
            self._store_order(gang, order)
        return order

    def give_stop_order(
        self, incarnation: Incarnation, ordinal: int, step: int, *, reason: str, now: float
    ) -> wire.Order:
        gang = self._open_gang(incarnation)
        stored = self._repeat(gang, ordinal, "stop", step)
        if stored is not None:
            return stored
        self._assert_boundary(gang, step)
        order = wire.Order(ordinal=ordinal, kind="stop", step=step, last=True, reason=_reason(reason))
        with self._db.transaction():
            self._store_order(gang, order)
        return order

    def current_refs(
        self, incarnation: Incarnation, step: int, version: int, sequences: Sequence[int]
    ) -> wire.RefsReply:
        self._open_gang(incarnation)
        row, places = self._db.one("window", step=step), self._schedule.window(step)
        if row is None:
            raise UserError(f"window {step} was never sealed")
        if row[0] != version:
            raise Closed(f"window {step} has version {row[0]!s} now")
        entries = {entry.sequence: entry.ref for entry in self._entries(places)}
        dead = {r[0] for r in self._db.all("members", low=places.start, high=places.stop) if r[1] == Sample.DEAD}
        wrong = [sequence for sequence in sequences if sequence not in entries or sequence in dead]
        if wrong:
            raise UserError(f"window {step} has no live sample {wrong[0]}")
        refs = tuple(ref for sequence in sequences if (ref := entries[sequence]) is not None)
        return wire.RefsReply(refs=refs, pending=tuple(s for s in sequences if entries[s] is None))

    # --- helpers -------------------------------------------------------------------------------------------------

    def _unready(self, places: range) -> int:
        return self._db.integer("unready_in_range", low=places.start, high=places.stop)

    def _entries(self, places: range) -> tuple[wire.WindowEntry, ...]:
        """A place with a ready sample carries its ref; any other is None."""
        rows = self._db.all("refs_in_range", low=places.start, high=places.stop)
        refs = {row[0]: self._ref(row) for row in rows if row[1] == Sample.READY}
        return tuple(wire.WindowEntry(sequence=sequence, ref=refs.get(sequence)) for sequence in places)

    def _stored_order(self, gang: GangRow, ordinal: int) -> wire.Order | None:
        row = self._db.one("order", number=gang.number, ordinal=ordinal)
        if row is None:
            return None
        if not isinstance(row[3], bytes):
            raise Conflict(f"order {ordinal} was carried out long ago")
        return msgspec.json.decode(row[3], type=wire.Order)

    def _repeat(self, gang: GangRow, ordinal: int, kind: str, step: int) -> wire.Order | None:
        """The order that was given under this ordinal. Raises `Conflict` for another one, or out of turn."""
        if ordinal > gang.orders_given or ordinal < 0:
            raise Conflict(f"order {ordinal} is out of turn: {gang.orders_given} were given")
        if ordinal == gang.orders_given:
            if gang.ending:
                raise Conflict("the last order of this incarnation was given")
            return None
        stored = self._stored_order(gang, ordinal)
        if stored is None or (stored.kind, stored.step) != (kind, step):
            raise Conflict(f"order {ordinal} was given already, and is another one")
        return stored

    def _assert_boundary(self, gang: GangRow, step: int) -> None:
        if step != gang.trained_step:
            raise Conflict(f"the boundary is at step {gang.trained_step}, not {step}")

    def _store_order(self, gang: GangRow, order: wire.Order) -> None:
        live = [entry.sequence for entry in order.entries if entry.ref is not None]
        self._db.run(
            "add_order",
            number=gang.number,
            ordinal=order.ordinal,
            kind=order.kind,
            step=order.step,
            version=order.version,
            body=msgspec.json.encode(order),
            live=msgspec.json.encode(live).decode() if order.kind == "train" else None,
        )
        changed = self._db.run(
            "note_order",
            number=gang.number,
            ordinal=order.ordinal,
            kind=order.kind,
            step=order.step,
            ending=int(order.last),
        )
        if not changed:
            raise Conflict(f"order {order.ordinal} is out of turn")

    def _record(self, step: int) -> wire.CheckpointState:
        """What a checkpoint of `step` must carry to rebuild this store."""
        progress = self._progress()
        end = self._schedule.end_of(step)
        return wire.CheckpointState(
            job_uid=self._facts.job_uid,
            store_epoch=self._facts.store_epoch,
            step=step,
            inputs=None if self._prepared is None else self._prepared.inputs,
            dead_letters=tuple(self._dead_letter(*row) for row in self._db.all("recorded_dead_letters", high=end)),
            capture_fingerprint=progress.capture_fingerprint,
            inexact_reasons=tuple(row[0] for row in self._db.all("inexact", limit=100)),
            generation_floor=progress.generation,
            attempt=progress.attempt,
            samples_recaptured=progress.recaptured,
            training_fingerprint=progress.training_fingerprint,
            world_size=progress.world_size,
        )

    def _dead_letter(self, sequence: object, reason: object, source: object) -> wire.DeadLetter:
        return msgspec.convert(
            {
                "sequence": sequence,
                "step": self._schedule.step_of(int(str(sequence))),
                "reason": reason,
                "source": source,
            },
            type=wire.DeadLetter,
        )


class Training(Orders):
    """Acks and losses."""

    def record_train_ack(self, request: wire.AckRequest, *, now: float) -> None:
        gang = self._open_gang(request.incarnation)
        places = self._schedule.window(request.step)
        for verdict in request.verdicts:
            if verdict.step != request.step or verdict.sequence not in places:
                raise UserError(f"a verdict on sequence number {verdict.sequence} is not about window {request.step}")
        if gang.checkpoint_step < request.step <= gang.acked_step:
            self._note_metrics_late(gang, request)
            return
        if request.step != gang.acked_step + 1:
            raise Conflict(f"window {request.step} cannot be acked after window {gang.acked_step}")
        order = self._db.one("train_order_of_step", number=gang.number, step=request.step)
        if order is None or order[0] != request.version:
            raise Conflict(f"version {request.version} of window {request.step} was not handed to this incarnation")
        with self._db.transaction():
            self._db.run(
                "add_ack",
                number=gang.number,
                step=request.step,
                version=request.version,
                verdicts=msgspec.json.encode(request.verdicts).decode(),
            )
            if not self._db.run("advance_ack", number=gang.number, step=request.step):
                raise Conflict(f"window {request.step} cannot be acked now")
            self._db.run("set_metrics", step=request.step, body=_metrics(request))
            self._db.run("recover_others", now=now)

    def _note_metrics_late(self, gang: GangRow, request: wire.AckRequest) -> None:
        """A checkpoint commit acked this window before its own ack came: only the metrics are news."""
        if self._db.one("ack", number=gang.number, step=request.step) is None:
            with self._db.transaction():
                self._db.run("set_metrics", step=request.step, body=_metrics(request))

    def report_lost(self, incarnation: Incarnation, samples: Sequence[wire.LostSample], *, now: float) -> int:
        gang = self._open_gang(incarnation)
        total = self._schedule.total
        for sample in samples:
            if not 0 <= sample.sequence < total:
                raise UserError(f"sequence number {sample.sequence} is outside 0..{total - 1}")
        with self._db.transaction():
            self._db.run("clear_picked")
            for sample in samples:
                self._db.run("pick_lost", sequence=sample.sequence, generation=sample.generation)
            lost = self._lose_picked()
            self._db.run("discard_picked")
            if lost:
                reasons = sorted({sample.reason for sample in samples})
                message = f"{lost} samples, the first is {min(s.sequence for s in samples)}: {'; '.join(reasons[:4])}"
                self._note(
                    wire.Incident(klass="SampleLost", unit="store", message=message, detected=now, step=gang.acked_step)
                )
        return lost


def _metrics(request: wire.AckRequest) -> str:
    """Stored metrics: JSON has no word for a number that is not finite."""
    if len(request.metrics) > METRICS_MAX:
        raise UserError(f"an ack carries {len(request.metrics)} metrics; at most {METRICS_MAX} are kept")
    finite = {name: value for name, value in request.metrics.items() if math.isfinite(value)}
    return msgspec.json.encode(finite).decode()


def _reason(text: str) -> _Reason:
    for known in get_args(_Reason):
        if text == known:
            return cast(_Reason, text)
    raise Bug(f"{text!r} is no reason for an order")
