"""Rows of the in-memory store, and what its themes share. Plain Python: no SQL, no sets of rows, one loop at a time.

It exists so that others can test against the port without a disk, and as the second opinion in the conformance suite:
it must answer every call as the SQLite store does, for reasons that a reader can check by eye.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from eyas_contract import wire
from eyas_contract.errors import Closed, Fenced
from eyas_contract.ids import Incarnation, ObjectKey, sample_id
from eyas_contract.refs import SampleRef
from eyas_contract.states import Sample, SampleEvent, after
from eyas_runtime.core.prompts import Prompts
from eyas_runtime.core.retention import RecordedCheckpoint
from eyas_runtime.core.sequence import Schedule
from eyas_runtime.metadata.fake.incidents import with_another
from eyas_runtime.metadata.port import JobFacts, LeaseGrant


@dataclass(slots=True)
class SampleRow:
    """One sequence number."""

    state: Sample = Sample.PENDING
    object: int | None = None
    payload_digest: str | None = None
    commit_number: int | None = None
    reason: str = ""
    source: str = ""


@dataclass(slots=True)
class ObjectRow:
    """One blob; `state` is used, kept or garbage."""

    ref: SampleRef
    state: str
    prompt: int | None
    last_use: int


@dataclass(slots=True)
class KeyRow:
    """A key that a lease may write."""

    generation: int
    key: ObjectKey
    reserved_bytes: int
    digest: str | None = None


@dataclass(slots=True)
class LeaseRow:
    """A lease and its keys by sequence number."""

    grant: LeaseGrant
    lease: wire.CaptureLease
    keys: dict[int, KeyRow]
    ended_because: str | None = None


@dataclass(slots=True, kw_only=True)
class GangRow:
    """One incarnation."""

    incarnation: Incarnation
    attempt: int
    process: str
    open: bool
    checkpoint_step: int
    checkpoint_directory: str
    world_size: int
    trained_step: int
    acked_step: int
    ordered_checkpoint_step: int = 0
    ending: bool = False
    orders: list[wire.Order] = field(default_factory=list)
    verdicts: dict[int, tuple[wire.Verdict, ...]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class CheckpointRow:
    """One checkpoint directory."""

    recorded: RecordedCheckpoint
    manifest_digest: str | None = None
    incarnation: str = ""
    receipt: str = ""
    weights_sha256: str = ""
    best: wire.Best | None = None
    garbage_of: str | None = None


class FakeBase:
    """All tables, and helpers over them."""

    def __init__(self, facts: JobFacts) -> None:
        self._facts = facts
        self._prepared: wire.Prepared | None = None
        self._prompts: Prompts | None = None
        self._expected_inputs: wire.Inputs | None = None
        self._attempt = self._durable_step = self._generation = 0
        self._commits = self._recaptured = self._drift = 0
        self._capture_fingerprint = self._training_fingerprint = self._failure = ""
        self._world_size = 0
        self._samples: dict[int, SampleRow] = {}
        self._objects: dict[int, ObjectRow] = {}
        self._holders: dict[int, tuple[wire.Holder, str]] = {}
        self._leases: dict[str, LeaseRow] = {}
        self._deaths: dict[int, int] = {}
        self._overruns: dict[int, int] = {}
        self._gangs: list[GangRow] = []
        self._members: dict[str, tuple[GangRow, int]] = {}
        self._windows: dict[int, int] = {}
        self._metrics: dict[int, dict[str, float]] = {}
        self._trained: list[tuple[int, int, str]] = []
        self._checkpoints: dict[str, CheckpointRow] = {}
        self._incidents: list[wire.Incident] = []
        self._inexact: list[str] = []

    @property
    def _schedule(self) -> Schedule:
        return self._facts.schedule(self._prepared)

    @property
    def _durable_end(self) -> int:
        return self._schedule.end_of(self._durable_step)

    # --- samples -------------------------------------------------------------------------------------------------

    def _row(self, sequence: int) -> SampleRow:
        return self._samples.setdefault(sequence, SampleRow())

    def _state(self, sequence: int) -> Sample:
        row = self._samples.get(sequence)
        return Sample.PENDING if row is None else row.state

    def _move(self, sequence: int, event: SampleEvent, **changes: object) -> None:
        row = self._row(sequence)
        row.state = after(row.state, event)
        row.object, row.reason, row.source = None, "", ""
        for name, value in changes.items():
            setattr(row, name, value)

    def _kill(self, sequence: int, reason: str, source: str) -> None:
        state = self._state(sequence)
        if state == Sample.DEAD:
            return
        generation = self._row(sequence).object
        if state == Sample.RELEASED:
            self._move(sequence, SampleEvent.RESURRECT)
        self._move(sequence, SampleEvent.KILL, reason=reason[:1000], source=source)
        self._settle(generation)

    def _settle(self, generation: int | None) -> None:
        """An object lost a use: somebody else uses it, or a later epoch may, or it is garbage."""
        row = None if generation is None else self._objects.get(generation)
        if row is None or row.state == "garbage":
            return
        if any(sample.object == generation for sample in self._samples.values()):
            row.state = "used"
        elif row.prompt is not None and row.last_use >= self._durable_end:
            row.state = "kept"
        else:
            row.state = "garbage"

    def _lose_objects(self, generations: Iterable[int]) -> int:
        """Every ready sample of these objects becomes lost; returns how many did."""
        wanted, lost = set(generations), 0
        for sequence in sorted(self._samples):
            if self._samples[sequence].object in wanted:
                self._move(sequence, SampleEvent.LOSE)
                lost += 1
        return lost

    def _release_below(self, low: int, high: int) -> None:
        for sequence in range(low, high):
            if self._state(sequence) in (Sample.PENDING, Sample.READY, Sample.LOST):
                generation = self._row(sequence).object
                self._move(sequence, SampleEvent.RELEASE)
                self._settle(generation)
        for row in self._objects.values():
            if row.state == "kept" and row.last_use < high:
                row.state = "garbage"

    def _ref(self, sequence: int) -> SampleRef | None:
        """The present ref of a ready sample."""
        row = self._samples.get(sequence)
        if row is None or row.object is None:
            return None
        values = {name: getattr(self._objects[row.object].ref, name) for name in SampleRef.__struct_fields__}
        return SampleRef(**{**values, "sequence": sequence, "sample_id": sample_id(sequence)})

    def _in_need(self, group: int) -> list[int]:
        return [
            sequence
            for sequence in self._schedule.group(group)
            if sequence >= self._durable_end and self._state(sequence) in (Sample.PENDING, Sample.LOST)
        ]

    def _live(self) -> list[LeaseRow]:
        return [row for row in self._leases.values() if row.ended_because is None]

    # --- guards and facts ----------------------------------------------------------------------------------------

    def _newest_gang(self) -> GangRow | None:
        return self._gangs[-1] if self._gangs else None

    def _open_gang(self, incarnation: str) -> GangRow:
        found = [gang for gang in self._gangs if gang.incarnation == incarnation]
        if not found:
            raise Closed(f"incarnation {incarnation[:64]} is not known here")
        if found[0].attempt < self._attempt:
            raise Fenced(f"attempt {found[0].attempt} is over")
        if not found[0].open:
            raise Closed(f"incarnation {incarnation[:64]} is closed")
        return found[0]

    def _assert_attempt(self, attempt: int) -> None:
        if attempt < self._attempt:
            raise Fenced(f"attempt {attempt} is over: attempt {self._attempt} has begun")

    def _note(self, incident: wire.Incident) -> None:
        self._incidents = with_another(self._incidents, incident)

    def _close_gang(self, gang: GangRow, *, klass: str, message: str, now: float) -> None:
        gang.open = False
        self._note(
            wire.Incident(
                klass=klass, unit="consumers", message=message, detected=now, step=gang.acked_step, serial=gang.attempt
            )
        )

    def _say_inexact(self, reason: str) -> None:
        if reason not in self._inexact:
            self._inexact.append(reason)
