"""Orders, acks and losses of the in-memory store."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, cast

from eyas_contract import wire
from eyas_contract.errors import Closed, Conflict, UserError
from eyas_contract.ids import Incarnation
from eyas_contract.states import Sample
from eyas_runtime.core.windows import content
from eyas_runtime.metadata import wording
from eyas_runtime.metadata.fake import incidents
from eyas_runtime.metadata.fake.gang import FakeGang
from eyas_runtime.metadata.fake.state import GangRow


class FakeTraining(FakeGang):
    """Orders, acks and losses."""

    def order(self, incarnation: Incarnation, ordinal: int) -> wire.Order | None:
        gang = self._open_gang(incarnation)
        if not 0 <= ordinal < len(gang.orders):
            return None
        order = gang.orders[ordinal]
        if order.kind != "stop" and order.step <= self._durable_step:
            raise Conflict(f"order {ordinal} was carried out long ago")
        return order

    def window_ready(self, step: int) -> bool:
        places = self._schedule.window(step)
        if step < 1 or not places:
            return False
        if self._unready(places) and self._facts.retain_objects:
            leased = {row.grant.group for row in self._live()}
            for group in sorted({self._schedule.group_of(sequence) for sequence in places} - leased):
                self._attach_group(group)
        return not self._unready(places)

    def _unready(self, places: range) -> bool:
        return any(self._state(sequence) not in (Sample.READY, Sample.DEAD) for sequence in places)

    def give_train_order(self, incarnation: Incarnation, ordinal: int, step: int, *, now: float) -> wire.Order:
        gang = self._open_gang(incarnation)

        def make() -> wire.Order:
            if step != gang.trained_step + 1:
                raise Conflict(f"after window {gang.trained_step} comes {gang.trained_step + 1}, not {step}")
            if not self.window_ready(step):
                raise Conflict(f"window {step} is not ready")
            order = wire.Order(
                ordinal=ordinal,
                kind="train",
                step=step,
                version=self._windows.setdefault(step, 1),
                entries=self._sealed(self._schedule.window(step)),
                prefetch=tuple(e.ref for e in self._entries(self._schedule.window(step + 1)) if e.ref is not None),
            )
            gang.trained_step = step
            return order

        return self._give(gang, ordinal, "train", step, make)

    def give_checkpoint_order(
        self, incarnation: Incarnation, ordinal: int, step: int, *, last: bool, reason: str, now: float
    ) -> wire.Order:
        gang = self._open_gang(incarnation)

        def make() -> wire.Order:
            _assert_boundary(gang, step)
            if step <= self._durable_step:
                raise Conflict(f"step {step} is durable already")
            gang.ordered_checkpoint_step = step
            return wire.Order(
                ordinal=ordinal,
                kind="checkpoint",
                step=step,
                last=last,
                reason=_reason(reason),
                state=self._record(step),
            )

        return self._give(gang, ordinal, "checkpoint", step, make)

    def give_stop_order(
        self, incarnation: Incarnation, ordinal: int, step: int, *, reason: str, now: float
    ) -> wire.Order:
        gang = self._open_gang(incarnation)

        def make() -> wire.Order:
            _assert_boundary(gang, step)
            return wire.Order(ordinal=ordinal, kind="stop", step=step, last=True, reason=_reason(reason))

        return self._give(gang, ordinal, "stop", step, make)

    def record_train_ack(self, request: wire.AckRequest, *, now: float) -> None:
        gang = self._open_gang(request.incarnation)
        places = self._schedule.window(request.step)
        for verdict in request.verdicts:
            if verdict.step != request.step or verdict.sequence not in places:
                raise UserError(f"a verdict on sequence number {verdict.sequence} is not about window {request.step}")
        if len(request.metrics) > 500:
            raise UserError(f"an ack carries {len(request.metrics)} metrics; at most 500 are kept")
        metrics = {name: value for name, value in request.metrics.items() if math.isfinite(value)}
        if gang.checkpoint_step < request.step <= gang.acked_step:
            if request.step not in gang.verdicts:
                self._metrics[request.step] = metrics
            return
        if request.step != gang.acked_step + 1:
            raise Conflict(f"window {request.step} cannot be acked after window {gang.acked_step}")
        handed = [o.version for o in gang.orders if o.kind == "train" and o.step == request.step]
        if handed != [request.version]:
            raise Conflict(f"version {request.version} of window {request.step} was not handed to this incarnation")
        gang.acked_step = request.step
        gang.verdicts[request.step] = request.verdicts
        self._metrics[request.step] = metrics
        self._incidents = incidents.others_over(self._incidents, now)

    def report_lost(self, incarnation: Incarnation, samples: Sequence[wire.LostSample], *, now: float) -> int:
        gang, total = self._open_gang(incarnation), self._schedule.total
        for sample in samples:
            if not 0 <= sample.sequence < total:
                raise UserError(f"sequence number {sample.sequence} is outside 0..{total - 1}")
        hit = {s.generation for s in samples if (row := self._samples.get(s.sequence)) and row.object == s.generation}
        lost = self._lose_objects(hit)
        for generation in hit:
            self._objects[generation].state = "garbage"
        if lost:
            reasons = sorted({sample.reason for sample in samples})
            message = wording.samples_lost(lost, first=min(s.sequence for s in samples), reasons=reasons)
            self._note(
                wire.Incident(klass="SampleLost", unit="store", message=message, detected=now, step=gang.acked_step)
            )
        return lost

    def current_refs(
        self, incarnation: Incarnation, step: int, version: int, sequences: Sequence[int]
    ) -> wire.RefsReply:
        self._open_gang(incarnation)
        if step not in self._windows:
            raise UserError(f"window {step} was never sealed")
        if self._windows[step] != version:
            raise Closed(f"window {step} has version {self._windows[step]} now")
        places = self._schedule.window(step)
        for sequence in sequences:
            if sequence not in places or self._state(sequence) == Sample.DEAD:
                raise UserError(f"window {step} has no live sample {sequence}")
        refs = {sequence: self._ref(sequence) for sequence in sequences}
        return wire.RefsReply(
            refs=tuple(ref for sequence in sequences if (ref := refs[sequence]) is not None),
            pending=tuple(sequence for sequence in sequences if refs[sequence] is None),
        )

    # --- helpers -------------------------------------------------------------------------------------------------

    def _sealed(self, places: range) -> tuple[wire.WindowEntry, ...]:
        live = {sequence: ref for sequence in places if (ref := self._ref(sequence)) is not None}
        return content(places, live, [sequence for sequence in places if self._state(sequence) == Sample.DEAD])

    def _entries(self, places: range) -> tuple[wire.WindowEntry, ...]:
        return tuple(wire.WindowEntry(sequence=sequence, ref=self._ref(sequence)) for sequence in places)

    def _give(self, gang: GangRow, ordinal: int, kind: str, step: int, make: Callable[[], wire.Order]) -> wire.Order:
        if not 0 <= ordinal <= len(gang.orders):
            raise Conflict(f"order {ordinal} is out of turn: {len(gang.orders)} were given")
        if ordinal < len(gang.orders):
            stored = self.order(gang.incarnation, ordinal)
            if stored is None or (stored.kind, stored.step) != (kind, step):
                raise Conflict(f"order {ordinal} was given already, and is another one")
            return stored
        if gang.ending:
            raise Conflict("the last order of this incarnation was given")
        order = make()
        gang.orders.append(order)
        gang.ending = order.last
        return order

    def _record(self, step: int) -> wire.CheckpointState:
        end = self._schedule.end_of(step)
        return wire.CheckpointState(
            job_uid=self._facts.job_uid,
            store_epoch=self._facts.store_epoch,
            step=step,
            training_step=self._schedule.training_step(step),
            inputs=None if self._prepared is None else self._prepared.inputs,
            dead_letters=tuple(letter for letter in self._dead_letters(end) if letter.source != "prepare"),
            capture_fingerprint=self._capture_fingerprint,
            inexact_reasons=tuple(self._inexact[:100]),
            generation_floor=self._generation,
            attempt=self._attempt,
            samples_recaptured=self._recaptured,
            training_fingerprint=self._training_fingerprint,
            world_size=self._world_size,
        )

    def _dead_letters(self, high: int) -> list[wire.DeadLetter]:
        return [
            wire.DeadLetter(
                sequence=sequence,
                step=self._schedule.step_of(sequence),
                reason=row.reason,
                source=cast(Literal["producer", "rank", "prepare"], row.source),
            )
            for sequence, row in sorted(self._samples.items())
            if row.state == Sample.DEAD and sequence < high
        ]


def _assert_boundary(gang: GangRow, step: int) -> None:
    if step != gang.trained_step:
        raise Conflict(f"the boundary is at step {gang.trained_step}, not {step}")


def _reason(text: str) -> Literal["", "schedule", "pressure", "best", "drain", "complete"]:
    return cast(Literal["", "schedule", "pressure", "best", "drain", "complete"], text)
