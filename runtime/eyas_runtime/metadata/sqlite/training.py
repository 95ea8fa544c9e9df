"""Theme "training" of the SQLite store: acks, which are progress and never durability, and losses."""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Conflict, UserError
from eyas_contract.ids import Incarnation
from eyas_runtime.metadata import wording
from eyas_runtime.metadata.sqlite.base import GangRow
from eyas_runtime.metadata.sqlite.orders import Orders

METRICS_MAX: Final = 500


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
            self._move_picked_objects("discard_picked")
            if lost:
                reasons = sorted({sample.reason for sample in samples})
                message = wording.samples_lost(lost, first=min(s.sequence for s in samples), reasons=reasons)
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
