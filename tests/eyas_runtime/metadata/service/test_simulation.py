"""Deterministic simulation: producers, ranks, the service and the pool fail at random, then heal; promises must hold.

One seed decides everything. While faults are on, safety is checked after every action; then the faults stop, and the
job must end with every sample trained exactly once or on the dead-letter list, and with an empty pool.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from eyas_contract import wire
from eyas_contract.errors import Closed, EyasError, Fenced
from eyas_runtime.metadata.service.sweeper import SWEEP_SECONDS
from support.metadata_service import BYTES_PER_SAMPLE, BYTES_PER_TOKEN, job_config, refs_of
from support.service_world import World
from support.small_job import Producer, Rank

PROMPTS = 24
ACTIONS = 160
ROUNDS_TO_FINISH = 600
"""Turns of everybody after the faults stop; a lease that was left behind takes 120 ticks of them."""


@dataclass(slots=True)
class _Reader(Rank):
    """A rank that reads what it trains: it acks only what the pool really holds."""

    pending: wire.Order | None = None
    unsaved: wire.Order | None = None
    """A checkpoint that was ordered and is written in the background."""


@dataclass(slots=True)
class Simulation:
    """One seed's world and its actors."""

    world: World
    random: random.Random
    faults: bool = True
    over: bool = False
    """Rank 0 was told that the job is complete, and lives."""
    seen: Counter[str] = field(default_factory=Counter)
    """What this seed visited."""
    producers: list[Producer] = field(default_factory=list)
    held: dict[int, list[wire.CaptureLease]] = field(default_factory=dict)
    rank: _Reader | None = None
    disk: wire.PresentedCheckpoint | None = None
    poisoned: set[int] = field(default_factory=set)
    trained: dict[int, int] = field(default_factory=dict)
    """Sequence number -> generation whose gradient the durable line of weights contains."""
    uncommitted: dict[int, int] = field(default_factory=dict)
    """The same for weights that no checkpoint contains yet."""

    # producers

    def start_producer(self, index: int) -> None:
        """Replace the process of an index: what it held is given up."""
        old = self.producers[index].holder
        newer = (
            msgspec.structs.replace(old, restart=old.restart + 1)
            if self.random.random() < 0.5
            else wire.Holder(index=index, ordinal=old.ordinal + 1, restart=0)
        )
        self.producers[index] = Producer(self.world, holder=newer, put=self.world.put)
        self.held[index] = []
        self.producers[index].prepare(self.counts)

    @property
    def counts(self) -> list[int]:
        """Tokens of each prompt."""
        return [4 + (number * 7) % 13 for number in range(PROMPTS)]

    def lease(self, index: int) -> None:
        """Ask for a group and keep it for later."""
        lease = self.producers[index].lease().lease
        if lease is not None:
            self.held[index].append(lease)

    def commit(self, index: int) -> None:
        """Capture one held group: all of it, with a poisoned member, or die half way."""
        if not self.held[index]:
            return
        lease = self.held[index].pop(0)
        producer = self.producers[index]
        chance = self.random.random() if self.faults else 1.0
        if chance < 0.1:
            self.world.put(refs_of(lease)[0])
            return
        try:
            bad = [task.sequence for task in lease.tasks if task.capture and task.sequence in self.poisoned]
            if bad:
                self._report_poison(producer, lease, bad)
            else:
                producer.commit(lease)
                if chance < 0.3:
                    producer.put = lambda _: None
                    producer.commit(lease)
                    producer.put = self.world.put
        except Fenced:
            self.start_producer(index)
        except EyasError:
            # The lease ended meanwhile; what was put is the sweep's.
            return

    def _report_poison(self, producer: Producer, lease: wire.CaptureLease, bad: list[int]) -> None:
        failures = tuple(wire.CaptureFailure(sequence=sequence, reason="bad", poison=True) for sequence in bad)
        request = wire.CaptureFailRequest(
            holder=producer.holder, lease_id=lease.lease_id, token=lease.token, failures=failures
        )
        self.world.call(wire.CAPTURE_FAIL, request)

    def renew(self, index: int) -> None:
        """Renew what is held."""
        producer = self.producers[index]
        if self.held[index]:
            producer.renew(*(lease.lease_id for lease in self.held[index]))

    # ranks

    def start_rank(self) -> None:
        """A new process of rank 0 presents what is on disk; its weights are those of that checkpoint."""
        attempt = self.rank.attempt if self.rank else 1
        attempt += self.random.random() < 0.2
        self.over = False
        self.rank = _Reader(self.world, attempt=attempt, checkpoint=self.disk)
        self.rank.reconcile()
        self.uncommitted = {}

    def kill_rank(self, code: int = -9) -> None:
        """The process ends; its supervisor tells, then starts it again."""
        assert self.rank is not None
        self.world.call(
            wire.EXIT, wire.ExitRequest(attempt=self.rank.attempt, rank=0, process=self.rank.process, code=code)
        )
        self.start_rank()

    def train(self) -> None:
        """One thing that rank 0 does."""
        assert self.rank is not None
        try:
            if not self.over:
                self._obey(self.rank)
        except (Closed, Fenced):
            self.start_rank()

    def _obey(self, rank: _Reader) -> None:
        if rank.unsaved is not None and (not self.faults or self.random.random() < 0.5):
            self._save(rank, rank.unsaved)
            rank.unsaved = None
        order = rank.pending or rank.order()
        if order is None:
            return
        self.seen[f"{order.kind} {order.reason}"] += 1
        if order.kind == "checkpoint" and not order.last:
            rank.unsaved = order
        elif order.kind != "train":
            self._end(rank, order)
        else:
            rank.pending = order
            if self._read(rank, order):
                rank.pending = None
                rank.ack(order)

    def _end(self, rank: _Reader, order: wire.Order) -> None:
        """The last order of this incarnation; a drained gang is started again."""
        if order.kind == "checkpoint":
            self._save(rank, order)
        if order.reason == "complete":
            self.over = True
        else:
            self.kill_rank(code=75)

    def _read(self, rank: _Reader, order: wire.Order) -> bool:
        """Fetch every sample of the window; False when one is lost and not there again yet."""
        live = {entry.sequence: entry.ref for entry in order.entries if entry.ref is not None}
        wanted = tuple(live)
        reply = self.world.call(
            wire.REFS,
            wire.RefsRequest(incarnation=rank.incarnation, step=order.step, version=order.version, sequences=wanted),
        )
        found = {ref.sequence: ref for ref in reply.refs}
        lost = [ref for ref in found.values() if ref.key not in self.world.pool.blobs]
        if lost:
            samples = tuple(wire.LostSample(sequence=r.sequence, generation=r.generation, reason="gone") for r in lost)
            self.world.call(wire.LOST, wire.LostRequest(incarnation=rank.incarnation, samples=samples))
        if lost or reply.pending:
            return False
        assert set(found) == set(wanted)
        for ref in found.values():
            assert ref.sequence not in self.trained, "trained again after it was durable"
            self.uncommitted[ref.sequence] = ref.generation
        return True

    def _save(self, rank: _Reader, order: wire.Order) -> None:
        request = rank.commit_request(order)
        receipt = self.world.call(wire.CHECKPOINT_COMMIT, request).receipt
        rank.keep(order, request, receipt if self.random.random() < 0.7 else "")
        self.disk = rank.checkpoint
        window = self.world.config.training.window_size
        done = {sequence for sequence in self.uncommitted if sequence < order.step * window}
        self.trained.update({sequence: self.uncommitted.pop(sequence) for sequence in done})

    # faults of the rest

    def lose_object(self) -> None:
        """The pool forgets an object."""
        if self.world.pool.blobs:
            self.world.blobs.delete(self.random.choice(sorted(self.world.pool.blobs)))

    def lose_all(self) -> None:
        """The master forgets everything."""
        for key in list(self.world.pool.blobs):
            self.world.blobs.delete(key)

    def act(self) -> None:
        """One random thing."""
        index = self.random.randrange(len(self.producers))
        actions: list[tuple[int, Callable[[], object]]] = [
            (30, lambda: self.lease(index)),
            (30, lambda: self.commit(index)),
            (10, lambda: self.renew(index)),
            (40, self.train),
            (6, self.kill_rank),
            (5, lambda: self.start_producer(index)),
            (4, self.lose_object),
            (1, self.lose_all),
            (5, self.world.restart),
            (6, self.world.sweep),
            (8, lambda: self.world.pass_time(self.random.choice([0.5, 2.0, 12.0]))),
            (2, lambda: self.world.call(wire.DRAIN, wire.DrainRequest(attempt=self._attempt(), reason="node"))),
        ]
        self.random.choices([action for _, action in actions], [weight for weight, _ in actions])[0]()

    def _attempt(self) -> int:
        assert self.rank is not None
        return self.rank.attempt

    def check(self) -> None:
        """What holds at every instant."""
        usage = self.world.store.usage()
        cap = self.world.config.store.max_resident_bytes
        assert usage.resident_bytes + usage.reserved_bytes <= cap
        status = self.world.status()
        assert status.durable_step <= status.acked_step or not status.incarnation
        assert self.world.audit().trained_twice == 0

    def finish(self) -> None:
        """No more faults: everybody does what they should, and it ends."""
        self.faults = False
        for _ in range(ROUNDS_TO_FINISH):
            for index in range(len(self.producers)):
                try:
                    self.renew(index)
                    self.lease(index)
                    self.commit(index)
                except Fenced:
                    self.start_producer(index)
            self.train()
            if self.over:
                return
            self.world.pass_time(0.5)
            self.world.sweep()
        raise AssertionError(f"it never ends: {self.world.status()}")


def simulate(folder: Path, seed: int, *, in_memory: bool) -> Simulation:
    """Run one seed to its end."""
    chance = random.Random(seed)
    largest = 16 * BYTES_PER_TOKEN + BYTES_PER_SAMPLE
    window, group = chance.choice([1, 2, 3]), chance.choice([1, 2, 4])
    config = job_config(
        folder,
        window_size=window,
        group_size=group,
        every_steps=chance.choice([1, 3, 100]),
        # The least is what one window needs whose places lie in two groups; the most never fills.
        max_resident_bytes=(window + 2 * group + chance.choice([0, 2, 1000])) * largest,
    )
    simulation = Simulation(World(folder, config, in_memory=in_memory), chance)
    simulation.poisoned = set(chance.sample(range(PROMPTS), chance.choice([0, 0, 2])))
    for index in range(2):
        simulation.producers.append(simulation.world.producer(index))
        simulation.held[index] = []
        simulation.producers[index].prepare(simulation.counts)
    simulation.start_rank()
    for _ in range(ACTIONS):
        simulation.act()
        simulation.check()
    simulation.finish()
    return simulation


def assert_promises(simulation: Simulation) -> None:
    """What holds at the end."""
    world = simulation.world
    audit, status = world.audit(), world.status()
    assert (audit.trained_twice, audit.missing) == (0, 0)
    assert audit.trained_once + audit.dead_lettered == PROMPTS
    assert {letter.sequence for letter in status.dead_letters} <= simulation.poisoned
    assert set(simulation.trained) == set(range(PROMPTS)) - {letter.sequence for letter in status.dead_letters}
    assert status.phase == "Complete"
    for _ in range(3):
        world.pass_time(31.0)
        world.clock.advance(SWEEP_SECONDS)
        world.sweep()
    assert world.pool.blobs == {}
    assert world.audit().live_leases == 0


@pytest.mark.parametrize("seed", [*range(15), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(15, 100))])
def test_promises_hold_under_random_faults(tmp_path: Path, seed: int) -> None:
    assert_promises(simulate(tmp_path, seed, in_memory=True))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1004))
def test_promises_hold_under_random_faults_on_the_durable_store(tmp_path: Path, seed: int) -> None:
    assert_promises(simulate(tmp_path, seed, in_memory=False))


def test_the_seeds_visit_what_they_are_for(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for seed in range(12):
        (tmp_path / str(seed)).mkdir()
        seen += simulate(tmp_path / str(seed), seed, in_memory=True).seen
    wanted = {"train ", "checkpoint schedule", "checkpoint pressure", "checkpoint drain", "checkpoint complete"}
    assert wanted <= set(seen), wanted - set(seen)


def test_a_seed_gives_the_same_run_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = simulate(tmp_path / "a", 7, in_memory=True)
    second = simulate(tmp_path / "b", 7, in_memory=True)
    assert first.trained == second.trained
