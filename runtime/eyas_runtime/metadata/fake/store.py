"""`InMemoryMetadataStore`: the metadata store in plain Python, for tests that need no disk.

It passes the same conformance suite as `sqlite.SQLiteMetadataStore` and is compared with it call by call by a state
machine. Nothing survives the process. It is for small jobs: most calls walk over all samples.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from eyas_contract import wire
from eyas_contract.ids import SEQUENCE_MAX, ObjectKey, generation_of, sample_id
from eyas_contract.states import Gang, Sample
from eyas_contract.words import counted
from eyas_runtime.metadata import wording
from eyas_runtime.metadata.fake.recovery import FakeRecovery
from eyas_runtime.metadata.fake.state import ObjectRow
from eyas_runtime.metadata.port import StoredObject, Usage

if TYPE_CHECKING:
    from eyas_runtime.metadata.port import MetadataStore


class _Objects(FakeRecovery):
    """Blobs in the pool."""

    def usage(self) -> Usage:
        gang = self._newest_gang()
        end = self._durable_end if gang is None else self._schedule.end_of(max(gang.acked_step, self._durable_step))
        trained = [self._samples[s].object for s in range(self._durable_end, end) if s in self._samples]
        return Usage(
            resident_bytes=sum(row.ref.length for row in self._objects.values()),
            resident_objects=len(self._objects),
            reserved_bytes=sum(
                key.reserved_bytes for lease in self._live() for key in lease.keys.values() if key.digest is None
            ),
            live_leases=len(self._live()),
            garbage_bytes=self._bytes_of("garbage"),
            kept_bytes=self._bytes_of("kept"),
            trained_bytes=sum(self._objects[generation].ref.length for generation in trained if generation is not None),
        )

    def releasable(self, *, limit: int) -> Sequence[StoredObject]:
        return tuple(_stored(row) for _, row in sorted(self._objects.items()) if row.state == "garbage")[:limit]

    def forget_objects(self, keys: Sequence[ObjectKey]) -> None:
        for key in keys:
            row = self._object_of(key)
            if row is not None and row.state == "garbage":
                del self._objects[generation_of(key)]

    def live_keys(self, keys: Sequence[ObjectKey]) -> frozenset[ObjectKey]:
        leased = {key.key for lease in self._live() for key in lease.keys.values()}
        return frozenset(key for key in keys if key in leased or self._object_of(key) is not None)

    def mark_missing(self, keys: Sequence[ObjectKey], *, reason: str, now: float) -> int:
        generations = [generation_of(key) for key in keys if self._object_of(key) is not None]
        lost = self._lose_objects(generations)
        for generation in generations:
            self._objects.pop(generation, None)
        if lost:
            message = f"{counted(lost, 'sample')}: {reason}"
            self._note(wire.Incident(klass="SampleLost", unit="store", message=message, detected=now))
        return lost

    def resident(self, *, after: ObjectKey | None, limit: int) -> Sequence[StoredObject]:
        cursor = 0 if after is None else generation_of(after)
        rows = sorted(self._objects.items())
        return tuple(_stored(row) for g, row in rows if g > cursor and row.state != "garbage")[:limit]

    def evictable_bytes(self, above_sequence: int) -> int:
        rows = [row for lowest, _, row in self._by_lowest_use() if above_sequence <= lowest <= SEQUENCE_MAX]
        return sum(row.ref.length for row in rows)

    def evict(self, *, nbytes: int, above_sequence: int, now: float) -> int:
        freed = 0
        for lowest, generation, row in self._by_lowest_use():
            if freed >= nbytes or lowest < above_sequence:
                break
            self._lose_objects([generation])
            row.state = "garbage"
            freed += row.ref.length
        return freed

    # --- helpers -------------------------------------------------------------------------------------------------

    def _bytes_of(self, state: str) -> int:
        return sum(row.ref.length for row in self._objects.values() if row.state == state)

    def _object_of(self, key: ObjectKey) -> ObjectRow | None:
        row = self._objects.get(generation_of(key))
        return row if row is not None and row.ref.key == key else None

    def _by_lowest_use(self) -> list[tuple[int, int, ObjectRow]]:
        """Objects that are not garbage, the last needed first; kept ones, which nobody needs yet, before all."""
        lowest = {generation: SEQUENCE_MAX + 1 for generation, row in self._objects.items() if row.state == "kept"}
        for sequence in sorted(self._samples, reverse=True):
            generation = self._samples[sequence].object
            if generation is not None:
                lowest[generation] = sequence
        return [(use, g, self._objects[g]) for use, g in sorted(((use, g) for g, use in lowest.items()), reverse=True)]


class InMemoryMetadataStore(_Objects):
    """Implements `port.MetadataStore`."""

    def durable_marker(self) -> tuple[int, int]:
        return self._durable_step, self._durable_end

    def all_committed_ids(self) -> Iterable[str]:
        rows = [(row.commit_number, s) for s, row in self._samples.items() if row.commit_number is not None]
        return [sample_id(sequence) for _, sequence in sorted(rows)]

    def metrics(self, after_step: int, limit: int) -> wire.MetricsReply:
        steps = [step for step in sorted(self._metrics) if step > after_step][:limit]
        return wire.MetricsReply(steps=tuple(self._schedule.metrics(step, self._metrics[step]) for step in steps))

    def audit(self) -> wire.AuditReply:
        end = self._durable_end
        times = Counter(sequence for _, sequence, _ in self._trained)
        dead = [sequence for sequence in range(end) if self._state(sequence) == Sample.DEAD]
        usage = self.usage()
        once = [sequence for sequence, count in times.items() if count == 1]
        evaluated = sum(self._schedule.rounds.use_of(sequence)[0] for sequence in once)
        return wire.AuditReply(
            trained_once=len(once) - evaluated,
            evaluated_once=evaluated,
            trained_twice=sum(count > 1 for count in times.values()),
            missing=sum(not times[sequence] for sequence in range(end) if sequence not in dead),
            dead_lettered=len(dead),
            resident_objects=usage.resident_objects,
            resident_bytes=usage.resident_bytes,
            live_leases=usage.live_leases,
        )

    def close(self) -> None:
        """Nothing to close."""

    def _replayed(self) -> int:
        """Training samples of windows that were acked by a start of the ranks and by one before it."""
        replayed, reached = 0, 0
        for gang in self._gangs:
            for step in range(gang.checkpoint_step + 1, min(gang.acked_step, reached) + 1):
                replayed += sum(not self._schedule.rounds.use_of(s)[0] for s in self._schedule.window(step))
            reached = max(reached, gang.acked_step)
        return replayed

    def status(self) -> wire.StatusReply:
        found, audit = self._status(), self.audit()
        end = self._schedule.end_of(found.acked_step)
        return msgspec.structs.replace(
            found,
            reached_step=max((each.acked_step for each in self._gangs), default=0),
            samples_waiting=sum(row.state == Sample.READY for s, row in self._samples.items() if s >= end),
            samples_replayed=self._replayed(),
            samples_applied_twice=audit.trained_twice,
            samples_missing=audit.missing,
        )

    def _status(self) -> wire.StatusReply:
        """All but what is counted over the life of the store."""
        gang, schedule, usage = self.gang(), self._schedule, self.usage()
        states = Counter(row.state for row in self._samples.values())
        newest, rounds = max(self._metrics, default=0), schedule.rounds
        used = [s for s in range(schedule.end_of(gang.acked_step)) if self._state(s) != Sample.DEAD]
        evaluated = sum(rounds.use_of(sequence)[0] for sequence in used)
        shown = (rounds.last_evaluation(newest), rounds.last_training(newest))
        values = {name: value for step in shown for name, value in self._metrics.get(step, {}).items()}
        step_seconds = values.get("step_seconds", 0.0)
        here = [
            row
            for row in self._checkpoints.values()
            if row.recorded.state == "committed" and row.recorded.step == self._durable_step
        ]
        return wire.StatusReply(
            job_uid=self._facts.job_uid,
            store_epoch=self._facts.store_epoch,
            phase=wording.phase_of(
                failure=self._failure, durable_step=self._durable_step, total_steps=schedule.total_steps
            ),
            failure=self._failure,
            attempt=self._attempt,
            incarnation=gang.incarnation or "",
            gang=Gang.OPEN if gang.open else Gang.CLOSED,
            total_steps=schedule.total_steps,
            total_samples=schedule.total,
            sealed_step=gang.sealed_step,
            acked_step=gang.acked_step,
            durable_step=self._durable_step,
            samples_ready=states[Sample.READY],
            samples_lost=states[Sample.LOST],
            samples_dead=states[Sample.DEAD],
            samples_committed=self._commits - self._recaptured,
            samples_recaptured=self._recaptured,
            samples_trained=len(used) - evaluated,
            samples_evaluated=evaluated,
            resident_objects=usage.resident_objects,
            resident_bytes=usage.resident_bytes,
            reserved_bytes=usage.reserved_bytes,
            cap_bytes=0,
            live_leases=usage.live_leases,
            paused="",
            exact=not self._inexact,
            inexact_reasons=tuple(self._inexact[:32]),
            capture_drift=self._drift,
            seconds_since_advance=0.0,
            steps_per_second=1.0 / step_seconds if step_seconds > 0.0 else 0.0,
            last_metrics=values,
            checkpoint_directory=here[0].recorded.directory if here else "",
            weights_sha256=here[0].weights_sha256 if here else "",
            total_training_steps=rounds.training_steps,
            acked_training_step=schedule.training_step(gang.acked_step),
            durable_training_step=schedule.training_step(self._durable_step),
            best=here[0].best if here else None,
            dead_letters=tuple(self._dead_letters(SEQUENCE_MAX)[:1000]),
            incidents=tuple(self._incidents[-64:]),
            suspects=wording.suspects_in_words(self.suspects(limit=8)),
        )


def _stored(row: ObjectRow) -> StoredObject:
    return StoredObject(key=row.ref.key, length=row.ref.length)


def _proof_of_port(store: InMemoryMetadataStore) -> "MetadataStore":
    """For the type checker: the fake has every method of the port."""
    return store
