"""What the themes of the SQLite store share: rows as values, guards, and the one way in which samples change state.

A theme (`capture`, `training`, ...) is a class over `SQLiteBase`; `store.SQLiteMetadataStore` is all of them together.
A public method opens at most one transaction and calls helpers that expect to be inside it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Closed, Fenced, UserError
from eyas_contract.ids import Incarnation, ObjectKey, generation_of, sample_id
from eyas_contract.refs import FeatureSpec, SampleRef
from eyas_contract.states import Sample, SampleEvent, after
from eyas_runtime.core.prompts import Prompts
from eyas_runtime.core.sequence import Schedule
from eyas_runtime.metadata.port import JobFacts
from eyas_runtime.metadata.sqlite.database import Database, Row, Value

INCIDENTS_KEPT: Final = 256
RESTARTS_KEPT: Final = 48
"""Of class ChildExited, so that the newest of other classes are always among those that `status` shows."""
RESTARTS_OF_A_UNIT_KEPT: Final = 24
CHUNK_SAMPLES: Final = 1 << 16
TEXT_MAX: Final = 1000
"""Characters of a reason or a message that are stored."""
_FEATURE_SPECS: Final = msgspec.json.Decoder(tuple[FeatureSpec, ...])


@dataclass(frozen=True, slots=True)
class Progress:
    """The single row of `progress`, in column order."""

    attempt: int
    durable_step: int
    frontier_group: int
    generation: int
    commits: int
    recaptured: int
    capture_drift: int
    capture_fingerprint: str
    training_fingerprint: str
    world_size: int
    expected_inputs: str | None
    failure: str


@dataclass(frozen=True, slots=True)
class GangRow:
    """A row of `incarnations`, in column order of the queries."""

    number: int
    incarnation: Incarnation
    attempt: int
    process: str
    state: str
    checkpoint_step: int
    checkpoint_directory: str
    world_size: int
    orders_given: int
    trained_step: int
    acked_step: int
    ordered_checkpoint_step: int
    ending: int

    @property
    def open(self) -> bool:
        """Whether its ranks may still change anything."""
        return self.state == "open"


class SQLiteBase:
    """Connection, facts of the job, and helpers."""

    def __init__(self, database: Database, facts: JobFacts) -> None:
        """Take over an open database and write or compare the facts. Raises `UserError` or `Fenced` when it is not
        this job's."""
        self._db = database
        self._facts = facts
        self._prepared: wire.Prepared | None = None
        self._prompts: Prompts | None = None
        self._compare_facts()
        self._load_prepared()

    def _compare_facts(self) -> None:
        mine = {
            name: getattr(self._facts, name)
            for name in self._facts.__struct_fields__
            # Whether a restart from zero is allowed is a wish of the moment, not an identity.
            if name != "allow_restart_from_zero"
        }
        row = self._db.one("job")
        if row is None:
            with self._db.transaction():
                self._db.run("add_job", **mine)
                self._db.run("add_progress")
                self._db.run("add_tally")
                self._db.run("add_object_totals")
            return
        stored = dict(zip(mine, row, strict=True))
        if stored["job_uid"] == mine["job_uid"] and int(stored["store_epoch"] or 0) > mine["store_epoch"]:
            raise Fenced(f"store epoch {mine['store_epoch']} is over: {self._db.path} is of {stored['store_epoch']}")
        changed = [
            f"{name} is {stored[name]!r}, not {value!r}" for name, value in mine.items() if stored[name] != value
        ]
        if changed:
            raise UserError(f"{self._db.path} belongs to another job, or its spec was changed: {'; '.join(changed)}")

    def _load_prepared(self) -> None:
        row = self._db.one("prepared")
        if row is not None and isinstance(row[0], bytes):
            self._prepared = msgspec.json.decode(row[0], type=wire.Prepared)
            self._prompts = Prompts.of(self._prepared)

    @property
    def _schedule(self) -> Schedule:
        return self._facts.schedule(self._prepared)

    def _progress(self) -> Progress:
        row = self._db.one("progress")
        if row is None:
            raise UserError(f"{self._db.path} has no progress row; it was not written by Eyas")
        return Progress(*row)

    # --- samples -------------------------------------------------------------------------------------------------

    def _move(self, event: SampleEvent, origin: Sample, statement: str, **values: Value) -> int:
        """Move samples by one guarded UPDATE; the target state comes from the table of transitions."""
        target = after(origin, event)
        count = self._db.run(statement, origin=origin.value, target=target.value, **values)
        self._add_to_tally(origin, -count)
        self._add_to_tally(target, count)
        return count

    def _add_to_tally(self, state: Sample, delta: int) -> None:
        if delta:
            self._db.run("add_to_tally", state=state.value, delta=delta)

    def _choose(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """Fill `chosen` with (sequence, reason, source)."""
        self._db.run("clear_chosen")
        self._db.run_many(
            "choose", ({"sequence": number, "reason": why[:TEXT_MAX], "source": source} for number, why, source in rows)
        )

    def _kill_chosen(self, *, durable_end: int) -> None:
        """Make every chosen sample a dead letter, whatever it was; those without a row get one."""
        self._add_to_tally(Sample.PENDING, self._db.run("add_pending_chosen"))
        self._db.run("clear_picked")
        self._db.run("pick_chosen")
        self._move(SampleEvent.RESURRECT, Sample.RELEASED, "move_chosen")
        for origin in (Sample.PENDING, Sample.LOST, Sample.READY):
            self._move(SampleEvent.KILL, origin, "kill_chosen")
        self._move_picked_objects("settle_picked", durable_end=durable_end)

    def _lose_picked(self) -> int:
        """Samples of the picked objects are captured again; returns how many."""
        return self._move(SampleEvent.LOSE, Sample.READY, "move_picked")

    def _release_below(self, *, low: int, high: int) -> None:
        """Samples of windows that a durable checkpoint contains; their objects go unless a later use keeps them."""
        for start, stop in self._chunks(low, high):
            self._db.run("clear_picked")
            self._db.run("pick_range", low=start, high=stop)
            for origin in (Sample.PENDING, Sample.READY, Sample.LOST):
                self._move(SampleEvent.RELEASE, origin, "move_range", low=start, high=stop)
            self._move_picked_objects("settle_picked", durable_end=high)
        if self._facts.retain_objects:
            self._db.run("clear_picked")
            self._db.run("pick_kept", durable_end=high)
            self._move_picked_objects("discard_picked")

    def _chunks(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Half-open ranges that cover the rows between two sequence numbers: what one statement changes is bounded,
        and with it the journal that SQLite keeps of the statement in memory."""
        stop = min(high, self._db.integer("sequence_end"))
        for start in range(low, stop, CHUNK_SAMPLES):
            yield start, min(start + CHUNK_SAMPLES, stop)

    def _move_picked_objects(self, statement: str, **values: Value) -> None:
        """Change the state of picked objects, and the sums with it."""
        before = self._db.all("picked_totals")
        if not before:
            return
        self._db.run(statement, **values)
        for sign, rows in ((-1, before), (1, self._db.all("picked_totals"))):
            for state, count, nbytes in rows:
                self._db.run("add_to_totals", state=state, objects=sign * count, bytes=sign * nbytes)

    def _pick_keys(self, keys: Iterable[ObjectKey]) -> None:
        self._db.run("clear_picked")
        self._db.run_many("pick_key", ({"generation": generation_of(key), "key": key} for key in keys))

    def _ref(self, row: Row) -> SampleRef:
        """The ref in a row of `refs_in_range` whose sample is ready."""
        (sequence, _, generation, key, digest, payload_digest, length, tokens, supervised) = row[:9]
        specs, strategy, version, fingerprint = row[9:]
        return SampleRef(
            sample_id=sample_id(sequence),
            sequence=sequence,
            key=ObjectKey(key),
            generation=generation,
            digest=digest,
            payload_digest=payload_digest,
            length=length,
            num_tokens=tokens,
            num_supervised=supervised,
            feature_specs=_FEATURE_SPECS.decode(specs),
            strategy=strategy,
            schema_version=version,
            fingerprint=fingerprint,
        )

    # --- guards --------------------------------------------------------------------------------------------------

    def _newest_gang(self) -> GangRow | None:
        row = self._db.one("newest_incarnation")
        return None if row is None else GangRow(*row)

    def _open_gang(self, incarnation: str) -> GangRow:
        """The open incarnation of that name. Raises `Fenced` when its attempt is over, `Closed` otherwise."""
        row = self._db.one("incarnation", incarnation=incarnation)
        if row is None:
            raise Closed(f"incarnation {incarnation[:64]} is not known here")
        gang = GangRow(*row)
        if gang.attempt < self._progress().attempt:
            raise Fenced(f"attempt {gang.attempt} is over")
        if not gang.open:
            raise Closed(f"incarnation {incarnation[:64]} is closed")
        return gang

    # --- facts ---------------------------------------------------------------------------------------------------

    def _note(self, incident: wire.Incident) -> None:
        self._db.run(
            "add_incident",
            klass=incident.klass,
            unit=incident.unit[:200],
            message=incident.message[:TEXT_MAX],
            detected=incident.detected,
            step=incident.step,
            recovered=incident.recovered,
            windows_replayed=incident.windows_replayed,
            serial=incident.serial,
            replaced=incident.replaced,
        )
        self._db.run("prune_restarts_of_unit", unit=incident.unit[:200], keep=RESTARTS_OF_A_UNIT_KEPT)
        self._db.run("prune_restarts", keep=RESTARTS_KEPT)
        self._db.run("prune_incidents", keep=INCIDENTS_KEPT)

    def _close_gang(self, gang: GangRow, *, klass: str, message: str, now: float) -> None:
        """Close an open incarnation and say why. `now`: when it ended."""
        self._db.run("close_incarnations")
        self._note(
            wire.Incident(
                klass=klass, unit="consumers", message=message, detected=now, step=gang.acked_step, serial=gang.attempt
            )
        )

    def _inexact(self, reason: str) -> None:
        self._db.run("add_inexact", reason=reason[:TEXT_MAX])
