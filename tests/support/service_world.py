"""The metadata service without HTTP and in virtual time: the same functions over a real database and a real pool.

`World.call` is what the front does after decoding; `World.pass_time` ticks as the service does; `World.sweep` is one
turn of the sweeper. Nothing waits for anything.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from eyas_contract import wire
from eyas_contract.config import JobConfig
from eyas_contract.refs import SampleRef
from eyas_runtime.features.blobs.memory import MemoryBlobStore, MemoryPool
from eyas_runtime.metadata.fake import InMemoryMetadataStore
from eyas_runtime.metadata.port import MetadataStore
from eyas_runtime.metadata.service.job import Job, facts_of, new_job
from eyas_runtime.metadata.service.prometheus import Telemetry
from eyas_runtime.metadata.service.routes import ROUTES
from eyas_runtime.metadata.service.sweeper import Sweeper
from eyas_runtime.metadata.service.tick import TICK_SECONDS, tick
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from support.manual_clock import ManualClock
from support.metadata_service import job_config
from support.small_job import Producer, Rank

T = TypeVar("T")
RECEIPT_KEY = b"k" * 32


class DirectThread:
    """The store's thread is the test's."""

    def call(self, call: Callable[[], T]) -> T:
        return call()


@dataclass(slots=True)
class World:
    """One service over `folder`, one pool, one clock. `restart` is a crash and a new start over the same files."""

    folder: Path
    config: JobConfig
    clock: ManualClock = field(default_factory=ManualClock)
    pool: MemoryPool = field(default_factory=MemoryPool)
    recorded_step: int = 0
    in_memory: bool = False
    """The shipped in-memory store instead of SQLite; a restart of the service leaves it as it is."""
    job: Job = field(init=False)
    sweeper: Sweeper = field(init=False)
    telemetry: Telemetry = field(init=False)
    blobs: MemoryBlobStore = field(init=False)
    _memory: MetadataStore | None = None
    highest_bytes: int = 0
    """The most bytes that the pool ever held."""

    def __post_init__(self) -> None:
        self.blobs = MemoryBlobStore(self.pool)
        self._start()

    @property
    def store(self) -> MetadataStore:
        """The database."""
        return self.job.store

    def _start(self) -> None:
        self.job = new_job(
            self.config, self._open_store(), clock=self.clock, receipt_key=RECEIPT_KEY, recorded_step=self.recorded_step
        )
        self.telemetry = Telemetry("test")
        self.sweeper = Sweeper(
            open_blobs=lambda: MemoryBlobStore(self.pool),
            worker=DirectThread(),
            job=lambda: self.job,
            telemetry=self.telemetry,
            monotonic=self.clock.monotonic,
        )
        self.sweeper.open()

    def _open_store(self) -> MetadataStore:
        if not self.in_memory:
            database = self.folder / f"metadata-{self.config.store_epoch}.sqlite"
            return SQLiteMetadataStore(database, facts_of(self.config))
        self._memory = self._memory or InMemoryMetadataStore(facts_of(self.config))
        return self._memory

    def restart(self) -> None:
        """What was in memory is gone, what is in the file stays."""
        if not self.in_memory:
            self.store.close()
        self._start()

    def close(self) -> None:
        """Let go of the file."""
        self.store.close()

    def call(self, endpoint: wire.Endpoint[wire.Q, wire.R], request: wire.Q) -> wire.R:
        """One call, through its own JSON."""
        return self.call_raw(endpoint, wire.encode(request))

    def call_raw(self, endpoint: wire.Endpoint[wire.Q, wire.R], raw: bytes) -> wire.R:
        """One call with these bytes as its body."""
        route: Any = ROUTES[endpoint.path]
        reply = route.answer(self.job, wire.decode(raw, endpoint.request, bytes_max=1 << 30))
        return wire.decode(wire.encode(reply), endpoint.reply, bytes_max=1 << 30)

    def pass_time(self, seconds: float, *, every: Callable[[], object] = lambda: None, period: float = 1.0) -> None:
        """Let `seconds` pass with ticks; `every` runs once each `period` of them."""
        passed, due = 0.0, period
        while passed < seconds:
            self.clock.advance(TICK_SECONDS)
            passed += TICK_SECONDS
            tick(self.job)
            if passed >= due:
                due += period
                every()

    def sweep(self) -> tuple[int, int]:
        """Release, measure and sweep now, whether it is time or not; (orphans, missing) of this sweep."""
        self.sweeper.release()
        self.sweeper.measure()
        return self.sweeper.sweep()

    def put(self, ref: SampleRef) -> None:
        """What a producer stores."""
        self.blobs.put(ref.key, bytes(ref.length))
        self.highest_bytes = max(self.highest_bytes, self.pool.used_bytes)

    def producer(self, index: int = 0, *, ordinal: int = 1, restart: int = 0) -> Producer:
        """A producer process that stores real objects."""
        holder = wire.Holder(index=index, ordinal=ordinal, restart=restart)
        return Producer(self, holder=holder, put=self.put)

    def rank(self, **values: Any) -> Rank:  # noqa: ANN401
        """A rank 0."""
        return Rank(self, **values)

    def status(self) -> wire.StatusReply:
        """What a reader sees."""
        return self.call(wire.STATUS, wire.Empty())

    def audit(self) -> wire.AuditReply:
        """Promises 3 and 7."""
        return self.call(wire.AUDIT, wire.Empty())

    def run_to_the_end(self, producer: Producer, rank: Rank, *, rounds: int = 10_000) -> None:
        """Producer, rank and sweeper take turns until the last order."""
        for _ in range(rounds):
            producer.produce()
            if rank.run(1):
                return
            self.sweep()
            self.clock.advance(TICK_SECONDS)
            tick(self.job)
        raise AssertionError(f"the job never ends: {self.status()}")


def new_world(folder: Path, **config: Any) -> World:  # noqa: ANN401
    """A world for `job_config(folder, **config)`."""
    return World(folder, job_config(folder, **config))
