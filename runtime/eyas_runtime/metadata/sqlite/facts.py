"""Theme "facts" of the SQLite store: what people, operators and tests see. Nothing here changes a sample."""

from collections.abc import Iterator
from typing import Final

import msgspec

from eyas_contract import wire
from eyas_contract.ids import SEQUENCE_MAX, sample_id
from eyas_contract.states import Gang, Sample
from eyas_runtime.metadata import wording
from eyas_runtime.metadata.sqlite.capture import Capture
from eyas_runtime.metadata.sqlite.checkpoints import best_of
from eyas_runtime.metadata.sqlite.ledger import Ledger
from eyas_runtime.metadata.sqlite.orders import Orders

DEAD_LETTERS_SHOWN: Final = 1000
INCIDENTS_SHOWN: Final = 64
REASONS_SHOWN: Final = 32
SUSPECTS_SHOWN: Final = 8


class Facts(Capture, Orders, Ledger):
    """Status and metrics."""

    def durable_marker(self) -> tuple[int, int]:
        step = self._progress().durable_step
        return step, self._schedule.end_of(step)

    def all_committed_ids(self) -> Iterator[str]:
        for row in self._db.each("committed_in_order"):
            yield sample_id(row[0])

    def metrics(self, after_step: int, limit: int) -> wire.MetricsReply:
        rows = self._db.all("metrics", after=after_step, limit=limit)
        return wire.MetricsReply(steps=tuple(self._schedule.metrics(step, _values(body)) for step, body in rows))

    def _replayed(self) -> int:
        """Training samples in windows that were acked again; looks at one row for each start of the ranks."""
        rounds = self._schedule.rounds
        windows, training = rounds.windows_of_round
        return self._db.integer(
            "trained_again",
            windows=windows,
            training=training,
            window_size=rounds.window_size,
            samples=rounds.samples,
        )

    def _waiting(self, ready: int, *, low: int, high: int) -> int:
        """Of the `ready` samples, those behind the acked windows: in low..high all others are dead or lost."""
        dead = self._db.integer("dead_below", high=high) - self._db.integer("dead_below", high=low)
        return max(0, ready - (high - low - dead - self._db.integer("in_need_in_range", low=low, high=high)))

    def _used_below(self, end: int) -> tuple[int, int]:
        """(training samples, held-out samples) below a sequence number that are not dead."""
        rounds = self._schedule.rounds
        alive = end - self._db.integer("dead_below", high=end)
        if not rounds.is_on:
            return alive, 0
        dead = self._db.integer("dead_held_out_below", high=end, **self._held_out())
        evaluated = rounds.held_out_below(end) - dead
        return alive - evaluated, evaluated

    def status(self) -> wire.StatusReply:
        found = self._status()
        low, high = self._schedule.end_of(found.durable_step), self._schedule.end_of(found.acked_step)
        return msgspec.structs.replace(
            found,
            reached_step=self._db.integer("reached_step"),
            samples_waiting=self._waiting(found.samples_ready, low=low, high=max(low, high)),
            samples_replayed=self._replayed(),
            samples_applied_twice=self._faults.twice,
            samples_missing=self._faults.missing,
        )

    def _status(self) -> wire.StatusReply:
        """All but what is counted over the life of the database."""
        progress, schedule, gang = self._progress(), self._schedule, self.gang()
        tally: dict[str, int] = dict(self._db.all("tally"))
        totals = self._db.all("object_totals")
        leases = self._db.one("lease_usage") or (0, 0)
        reasons = tuple(row[0] for row in self._db.all("inexact", limit=REASONS_SHOWN))
        checkpoint = self._db.one("checkpoint_at", step=progress.durable_step)
        trained, evaluated = self._used_below(schedule.end_of(gang.acked_step))
        values = self._last_values()
        step_seconds = values.get("step_seconds", 0.0)
        return wire.StatusReply(
            job_uid=self._facts.job_uid,
            store_epoch=self._facts.store_epoch,
            phase=wording.phase_of(
                failure=progress.failure, durable_step=progress.durable_step, total_steps=schedule.total_steps
            ),
            failure=progress.failure,
            attempt=progress.attempt,
            incarnation=gang.incarnation or "",
            gang=Gang.OPEN if gang.open else Gang.CLOSED,
            total_steps=schedule.total_steps,
            total_samples=schedule.total,
            sealed_step=gang.sealed_step,
            acked_step=gang.acked_step,
            durable_step=progress.durable_step,
            samples_ready=tally[Sample.READY],
            samples_lost=tally[Sample.LOST],
            samples_dead=tally[Sample.DEAD],
            samples_committed=progress.commits - progress.recaptured,
            samples_recaptured=progress.recaptured,
            samples_trained=trained,
            samples_evaluated=evaluated,
            resident_objects=sum(row[1] for row in totals),
            resident_bytes=sum(row[2] for row in totals),
            reserved_bytes=leases[1],
            cap_bytes=0,
            live_leases=leases[0],
            paused="",
            exact=not reasons,
            inexact_reasons=reasons,
            capture_drift=progress.capture_drift,
            seconds_since_advance=0.0,
            steps_per_second=1.0 / step_seconds if step_seconds > 0.0 else 0.0,
            last_metrics=values,
            checkpoint_directory="" if checkpoint is None else str(checkpoint[0]),
            weights_sha256="" if checkpoint is None else str(checkpoint[1]),
            total_training_steps=schedule.rounds.training_steps,
            acked_training_step=schedule.training_step(gang.acked_step),
            durable_training_step=schedule.training_step(progress.durable_step),
            best=None if checkpoint is None or checkpoint[2] is None else best_of(checkpoint[2]),
            dead_letters=tuple(
                self._dead_letter(*row)
                for row in self._db.all("dead_letters", high=SEQUENCE_MAX, limit=DEAD_LETTERS_SHOWN)
            ),
            incidents=self._incidents(),
            suspects=wording.suspects_in_words(self.suspects(limit=SUSPECTS_SHOWN)),
        )

    def _last_values(self) -> dict[str, float]:
        """Of the newest window that trained, with those of the newest evaluation."""
        newest, rounds = self._db.integer("last_metrics"), self._schedule.rounds
        found: dict[str, float] = {}
        for step in (rounds.last_evaluation(newest), rounds.last_training(newest)):
            row = self._db.one("metrics_of", step=step)
            found |= {} if row is None else _values(row[0])
        return found

    def _incidents(self) -> tuple[wire.Incident, ...]:
        names = ("klass", "unit", "message", "detected", "step", "recovered", "windows_replayed", "serial", "replaced")
        rows = self._db.all("incidents", limit=INCIDENTS_SHOWN)
        return tuple(msgspec.convert(dict(zip(names, row, strict=True)), type=wire.Incident) for row in reversed(rows))


def _values(body: str) -> dict[str, float]:
    return msgspec.json.decode(body, type=dict[str, float])
