"""Theme "orders" of the SQLite store: what rank 0 is told, stored so that a repeat gets the same answer."""

from collections.abc import Sequence
from typing import Literal, cast, get_args

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Bug, Closed, Conflict, UserError
from eyas_contract.ids import Incarnation
from eyas_contract.states import Sample
from eyas_runtime.core.windows import content
from eyas_runtime.metadata.sqlite.base import GangRow
from eyas_runtime.metadata.sqlite.gang import Gang

_Reason = Literal["", "schedule", "pressure", "best", "drain", "complete"]


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
                entries=self._sealed(self._schedule.window(step)),
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

    def _sealed(self, places: range) -> tuple[wire.WindowEntry, ...]:
        """Every place is live or dead; anything else would silently be a hole."""
        rows = self._db.all("refs_in_range", low=places.start, high=places.stop)
        live = {row[0]: self._ref(row) for row in rows if row[1] == Sample.READY}
        return content(places, live, [row[0] for row in rows if row[1] == Sample.DEAD])

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
            training_step=self._schedule.training_step(step),
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


def _reason(text: str) -> _Reason:
    for known in get_args(_Reason):
        if text == known:
            return cast(_Reason, text)
    raise Bug(f"{text!r} is no reason for an order")
