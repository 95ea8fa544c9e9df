"""The hazards that live in the service, by number (reference: interleavings that broke an earlier design)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eyas_contract import wire
from eyas_contract.config import RecoveryConfig
from eyas_contract.errors import Closed, EyasError, Fenced, UserError
from eyas_contract.ids import store_epoch_of
from eyas_runtime.features.blobs.memory import MemoryPool
from support.metadata_service import BYTES_PER_SAMPLE, BYTES_PER_TOKEN, job_config, refs_of
from support.service_world import World
from support.small_job import Producer, Rank

TOKENS = 8
SAMPLE = TOKENS * BYTES_PER_TOKEN + BYTES_PER_SAMPLE
"""Bytes of a sample of `TOKENS` tokens."""
NewWorld = Callable[..., World]


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[NewWorld]:
    worlds: list[World] = []

    def make(*, pool: MemoryPool | None = None, recorded_step: int = 0, **config: Any) -> World:  # noqa: ANN401
        values = {"pool": pool} if pool is not None else {}
        world = World(tmp_path, job_config(tmp_path, **config), recorded_step=recorded_step, **values)  # type: ignore[arg-type]
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.close()


def started(world: World, token_counts: list[int]) -> tuple[Producer, Rank]:
    """A producer that has prepared and a rank that has reconciled."""
    producer = world.producer()
    producer.prepare(token_counts)
    rank = world.rank()
    rank.reconcile()
    return producer, rank


def renewing(producer: Producer, lease: wire.CaptureLease) -> Callable[[], object]:
    """A heartbeat that renews one lease."""
    return lambda: producer.renew(lease.lease_id)


def order_of(rank: Rank, kind: str) -> wire.Order:
    """Obey orders up to the next one of `kind`, which is returned and not obeyed."""
    while (order := rank.order()) is not None:
        if order.kind == kind:
            return order
        rank.obey(order)
    raise AssertionError(f"no {kind} was ordered")


def test_hazard_17_a_store_full_of_acked_samples_gets_a_checkpoint_long_before_every_steps(new_world: NewWorld) -> None:
    # Room for four of the sixteen windows: the reserve of one window and one group, and two windows more.
    world = new_world(max_resident_bytes=8 * SAMPLE, every_steps=1000)
    producer, rank = started(world, [TOKENS] * 32)
    rank.run(2)
    world.run_to_the_end(producer, rank)
    reasons = [order.reason for order in rank.orders if order.kind == "checkpoint"]
    assert "pressure" in reasons
    assert world.audit().trained_once == 32
    assert world.highest_bytes <= 8 * SAMPLE


def test_hazard_17_with_lengths_that_differ_by_far_the_job_ends_and_stays_under_its_cap(new_world: NewWorld) -> None:
    counts = [1 + (number * 37) % 60 for number in range(40)]
    cap = 6 * (60 * BYTES_PER_TOKEN + BYTES_PER_SAMPLE)
    world = new_world(max_resident_bytes=cap, every_steps=1000)
    producer, rank = started(world, counts)
    world.run_to_the_end(producer, rank)
    assert world.audit().trained_once == 40
    assert world.highest_bytes <= cap


def test_hazard_18_a_lost_sample_of_the_next_window_enters_a_store_that_later_ones_fill(new_world: NewWorld) -> None:
    world = new_world(max_resident_bytes=8 * SAMPLE)
    producer, rank = started(world, [TOKENS] * 32)
    producer.produce()
    assert producer.lease().lease is None
    train = order_of(rank, "train")
    lost = [entry.ref for entry in train.entries if entry.ref is not None]
    for ref in lost:
        world.blobs.delete(ref.key)
    samples = tuple(wire.LostSample(sequence=r.sequence, generation=r.generation, reason="gone") for r in lost)
    world.call(wire.LOST, wire.LostRequest(incarnation=rank.incarnation, samples=samples))
    lease = producer.must_lease()
    assert [task.sequence for task in lease.tasks if task.capture] == [0, 1]
    producer.commit(lease)
    refs = world.call(
        wire.REFS,
        wire.RefsRequest(incarnation=rank.incarnation, step=1, version=train.version, sequences=(0, 1)),
    )
    assert refs.pending == ()
    assert world.highest_bytes <= 8 * SAMPLE


def test_hazard_18_when_only_later_samples_are_left_the_highest_are_evicted(new_world: NewWorld) -> None:
    pool = MemoryPool()
    world = new_world(pool=pool, max_resident_bytes=8 * SAMPLE)
    producer, rank = started(world, [TOKENS] * 32)
    # The cap shrinks under what is resident: even the reserve is taken.
    producer.produce()
    before = world.status().samples_ready
    world.job.pool_capacity_bytes = 5 * SAMPLE
    rank.run(1)
    world.call(
        wire.LOST,
        wire.LostRequest(
            incarnation=rank.incarnation,
            samples=(wire.LostSample(sequence=2, generation=world_generation(world, 2), reason="gone"),),
        ),
    )
    for _ in range(20):
        producer.produce()
        rank.run(1)
        world.sweep()
    world.job.pool_capacity_bytes = None
    world.run_to_the_end(producer, rank)
    assert before > 2
    assert world.audit().trained_once == 32


def world_generation(world: World, sequence: int) -> int:
    """The generation that the window of `sequence` would be handed with now."""
    pages = world.store.resident(after=None, limit=1000)
    return int(sorted(pages, key=lambda each: each.key)[sequence].key.split(".g")[1].split(".")[0])


def test_hazard_19_when_a_store_node_dies_the_cap_shrinks_with_the_pool(new_world: NewWorld) -> None:
    pool = MemoryPool(max_bytes=16 * SAMPLE)
    world = new_world(pool=pool, max_resident_bytes=1 << 40)
    producer, _ = started(world, [TOKENS] * 64)
    world.sweep()
    assert producer.lease().lease is not None
    assert world.status().cap_bytes == 12 * SAMPLE
    pool.max_bytes = 8 * SAMPLE
    world.clock.advance(10.0)
    world.sweep()
    producer.produce()
    assert world.status().cap_bytes == 6 * SAMPLE
    usage = world.store.usage()
    assert usage.resident_bytes + usage.reserved_bytes <= 6 * SAMPLE
    assert world.status().paused


def test_hazard_19_a_pool_that_is_empty_after_a_restart_of_its_master_is_waited_for(new_world: NewWorld) -> None:
    """Its nodes come back within seconds; a job that ended for it would have ended for nothing."""
    pool = MemoryPool(max_bytes=16 * SAMPLE)
    world = new_world(pool=pool, max_resident_bytes=1 << 40)
    producer, rank = started(world, [TOKENS] * 64)
    pool.max_bytes = 0
    world.clock.advance(10.0)
    world.sweep()
    producer.produce()
    assert world.status().paused.startswith("the store holds 0 of ")
    assert world.status().failure == ""
    pool.max_bytes = 16 * SAMPLE
    world.clock.advance(10.0)
    world.sweep()
    world.run_to_the_end(producer, rank)
    assert world.audit().missing == 0


def test_hazard_20_a_retained_set_larger_than_the_cap_is_ingested_again_in_the_next_epoch(new_world: NewWorld) -> None:
    world = new_world(features=True, epochs=2, max_resident_bytes=8 * SAMPLE)
    producer, rank = started(world, [TOKENS] * 16)
    world.run_to_the_end(producer, rank)
    assert world.audit().trained_once == 32
    assert world.audit().missing == 0
    assert world.highest_bytes <= 8 * SAMPLE


def test_hazard_20_an_object_of_several_epochs_outlives_its_first_use(new_world: NewWorld) -> None:
    world = new_world(features=True, epochs=2, every_steps=1)
    producer, rank = started(world, [TOKENS] * 4)
    producer.produce()
    order_of(rank, "checkpoint")
    world.sweep()
    assert len(world.pool.blobs) == 4


def test_hazard_21_a_lease_that_its_holder_does_not_name_expires_although_he_renews_others(new_world: NewWorld) -> None:
    world = new_world()
    producer, _ = started(world, [TOKENS] * 8)
    forgotten, named = producer.must_lease(), producer.must_lease()
    world.pass_time(40.0, every=lambda: producer.renew(named.lease_id))
    assert producer.renew(named.lease_id, forgotten.lease_id) == (named.lease_id,)
    assert producer.must_lease().group == forgotten.group


def test_hazard_21_a_repeated_lease_call_is_answered_even_when_the_store_is_full_by_now(new_world: NewWorld) -> None:
    world = new_world(max_resident_bytes=4 * SAMPLE)
    producer, _ = started(world, [TOKENS] * 8)
    lease = producer.lease(request_id="same").lease
    world.restart()
    assert producer.lease(request_id="other").lease is None
    assert producer.lease(request_id="same").lease == lease


def test_hazard_22_after_a_restart_every_lease_gets_one_full_term_whatever_the_wall_clock_says(
    new_world: NewWorld,
) -> None:
    world = new_world()
    producer, _ = started(world, [TOKENS] * 8)
    lease = producer.must_lease()
    world.pass_time(29.0)
    world.clock.set_wall(0.0)
    world.restart()
    world.pass_time(29.0)
    assert producer.renew(lease.lease_id) == (lease.lease_id,)
    world.pass_time(31.0)
    assert producer.renew(lease.lease_id) == ()


def test_hazard_22_what_a_removed_producer_held_is_captured_by_another(new_world: NewWorld) -> None:
    world = new_world()
    producer, rank = started(world, [TOKENS] * 8)
    producer.must_lease()
    world.pass_time(31.0)
    other = world.producer(1)
    other.register()
    world.run_to_the_end(other, rank)
    assert world.audit().trained_once == 8


def test_hazard_22_a_producer_that_renews_and_never_commits_loses_its_lease_and_the_next_one_has_longer(
    new_world: NewWorld,
) -> None:
    world = new_world(recovery=RecoveryConfig(lease_seconds=10.0, capture_deadline_seconds=60.0))
    hung, _ = started(world, [TOKENS] * 8)
    deadlines = []
    for _ in range(3):
        lease = hung.must_lease()
        deadlines.append(lease.deadline_seconds)
        assert lease.group == 0
        world.pass_time(lease.deadline_seconds - 1.0, every=renewing(hung, lease))
        assert hung.renew(lease.lease_id) == (lease.lease_id,)
        world.pass_time(2.0, every=renewing(hung, lease))
        assert hung.renew(lease.lease_id) == ()
    assert deadlines == [60.0, 120.0, 240.0]


def test_hazard_23_of_two_processes_of_one_producer_the_older_is_fenced_and_stays_so(new_world: NewWorld) -> None:
    world = new_world()
    old, _ = started(world, [TOKENS] * 8)
    lease = old.must_lease()
    new = world.producer(ordinal=2)
    new.register()
    old.put = lambda _: None
    calls: list[Callable[[], object]] = [
        old.register, old.lease, lambda: old.commit(lease), lambda: old.renew(lease.lease_id),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(Fenced):
            call()
    world.restart()
    for call in calls[:3]:
        with pytest.raises(Fenced):
            call()
    assert new.must_lease().group == lease.group


def test_hazard_23_a_rank_of_an_older_attempt_cannot_fence_the_newer(new_world: NewWorld) -> None:
    world = new_world()
    _, rank = started(world, [TOKENS] * 8)
    newer = world.rank(attempt=2)
    newer.reconcile()
    for _ in range(2):
        with pytest.raises(Fenced):
            world.rank(attempt=1).reconcile()
        with pytest.raises(EyasError):
            rank.order()
    assert world.status().incarnation == newer.incarnation


def test_hazard_23_a_repeated_reconcile_of_one_process_does_not_fence_itself(new_world: NewWorld) -> None:
    world = new_world()
    _, rank = started(world, [TOKENS] * 8)
    first = rank.incarnation
    assert rank.reconcile().incarnation == first


class ListHook:
    """A pool in which something happens right after it was listed."""

    def __init__(self, world: World, then: Callable[[], object]) -> None:
        self._blobs = world.blobs
        self._then = then

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._blobs, name)

    def list(self, prefix: str) -> list[Any]:
        listed = list(self._blobs.list(prefix))
        self._then()
        return listed


def test_hazard_24_an_object_that_is_committed_after_the_listing_is_spared(new_world: NewWorld) -> None:
    world = new_world()
    producer, _ = started(world, [TOKENS] * 8)
    lease = producer.must_lease()
    for ref in refs_of(lease):
        world.put(ref)
    producer.put = lambda _: None
    world.sweeper._blobs = ListHook(world, lambda: producer.commit(lease))
    assert world.sweeper.sweep() == (0, 0)
    assert len(world.pool.blobs) == 2


def test_hazard_24_an_object_that_is_put_after_the_listing_is_not_taken_for_missing(new_world: NewWorld) -> None:
    world = new_world()
    producer, _ = started(world, [TOKENS] * 8)
    world.sweeper._blobs = ListHook(world, producer.produce)
    assert world.sweeper.sweep() == (0, 0)
    assert world.status().samples_ready == 8


def test_hazard_24_objects_of_a_lease_that_ended_are_swept_and_can_never_be_committed(new_world: NewWorld) -> None:
    world = new_world()
    producer, _ = started(world, [TOKENS] * 8)
    lease = producer.must_lease()
    for ref in refs_of(lease):
        world.put(ref)
    world.pass_time(31.0)
    assert world.sweep() == (2, 0)
    producer.put = lambda _: None
    with pytest.raises(EyasError):
        producer.commit(lease)
    assert world.status().samples_ready == 0


def test_hazard_24_a_late_report_about_an_old_generation_changes_nothing(new_world: NewWorld) -> None:
    world = new_world()
    producer, rank = started(world, [TOKENS] * 8)
    producer.produce()
    train = order_of(rank, "train")
    ref = train.entries[0].ref
    assert ref is not None
    report = wire.LostRequest(
        incarnation=rank.incarnation,
        samples=(wire.LostSample(sequence=ref.sequence, generation=ref.generation, reason="gone"),),
    )
    world.call(wire.LOST, report)
    producer.produce()
    world.call(wire.LOST, report)
    assert (world.status().samples_lost, world.status().samples_ready) == (0, 8)


def beating(world: World, rank: Rank) -> Callable[[], object]:
    """A heartbeat whose counter moves each time."""
    counter = iter(range(1, 1_000_000))
    return lambda: world.call(
        wire.HEARTBEAT,
        wire.HeartbeatRequest(incarnation=rank.incarnation, rank=0, counter=next(counter), phase="working"),
    )


def test_hazard_25_a_stopped_rank_closes_its_incarnation_within_the_hang_term(new_world: NewWorld) -> None:
    world = new_world()
    producer, rank = started(world, [TOKENS] * 8)
    producer.produce()
    rank.run(1)
    assert order_of(rank, "train").step == 2
    world.pass_time(59.0)
    assert world.status().gang == "open"
    world.pass_time(2.0)
    assert world.status().gang == "closed"
    assert world.status().incidents[-1].klass == "Hang"
    with pytest.raises(Closed):
        beating(world, rank)()


def test_hazard_25_slow_work_that_moves_is_no_hang(new_world: NewWorld) -> None:
    world = new_world()
    producer, rank = started(world, [TOKENS] * 8)
    producer.produce()
    rank.run(1)
    order_of(rank, "train")
    world.pass_time(500.0, every=beating(world, rank))
    assert world.status().gang == "open"


def test_hazard_25_the_term_follows_the_median_step_also_after_a_restart_of_the_service(new_world: NewWorld) -> None:
    world = new_world(window_size=1, every_steps=100)
    producer, rank = started(world, [TOKENS] * 8)
    producer.produce()
    rank.reconcile()
    order = order_of(rank, "train")
    world.call(
        wire.ACK,
        wire.AckRequest(
            incarnation=rank.incarnation, step=1, version=order.version, verdicts=(), metrics={"step_seconds": 30.0}
        ),
    )
    world.restart()
    assert world.job.hang.term_seconds(stepped=True) == 300.0


def test_hazard_33_a_service_of_an_older_epoch_never_touches_newer_keys(new_world: NewWorld) -> None:
    pool = MemoryPool()
    old = new_world(pool=pool, store_epoch=1)
    producer, _ = started(old, [TOKENS] * 8)
    producer.produce(2)
    new = new_world(pool=pool, store_epoch=2)
    other, rank = started(new, [TOKENS] * 8)
    other.produce()
    newer = {key for key in pool.blobs if store_epoch_of(key) == 2}
    assert len(newer) == 8
    for _ in range(3):
        old.clock.advance(100.0)
        old.sweep()
    assert newer <= set(pool.blobs)
    # The new one may and does remove what the old one left.
    new.sweep()
    assert set(pool.blobs) == newer
    assert rank.run(1) is False


def test_hazard_33_a_receipt_of_the_old_epoch_names_it_and_does_not_commit_in_the_new(new_world: NewWorld) -> None:
    old, new = new_world(store_epoch=1), new_world(store_epoch=2)
    producer, zombie = started(old, [TOKENS] * 8)
    producer.produce()
    zombie.run(1)
    order = zombie.order()
    assert order is not None
    zombie.save(order)
    with pytest.raises(Fenced):
        new.call(wire.CHECKPOINT_COMMIT, zombie.commit_request(order))
    # Its receipt is ours all the same: the newest checkpoint by (store epoch, step) decides, not the older service.
    assert zombie.checkpoint is not None
    assert zombie.checkpoint.store_epoch == 1


def test_hazard_35_a_lost_database_starts_from_a_checkpoint_whose_receipt_is_ours(new_world: NewWorld) -> None:
    old = new_world(store_epoch=1)
    producer, rank = started(old, [TOKENS] * 8)
    producer.produce()
    for _ in range(4):
        rank.run(1)
    shown = rank.checkpoint
    assert shown is not None
    new = new_world(store_epoch=2, recorded_step=shown.step)
    again = new.rank(attempt=2, checkpoint=shown)
    assert again.reconcile().checkpoint_step == shown.step
    other = new.producer(ordinal=2)
    other.prepare([TOKENS] * 8)
    new.run_to_the_end(other, again)
    assert new.status().durable_step == 4
    assert again.trained == list(range(shown.step + 1, 5))


def test_hazard_35_an_empty_mount_never_means_start_at_zero(new_world: NewWorld) -> None:
    world = new_world(recorded_step=30)
    producer = world.producer()
    producer.prepare([TOKENS] * 8)
    with pytest.raises(UserError, match="CheckpointsLost: step 30"):
        world.rank().reconcile()
    assert world.status().phase == "Failed"
    assert producer.lease().finished


def test_hazard_35_a_forged_receipt_is_not_believed(new_world: NewWorld) -> None:
    old = new_world(store_epoch=1)
    producer, rank = started(old, [TOKENS] * 8)
    producer.produce()
    order = order_of(rank, "checkpoint")
    rank.keep(order, rank.commit_request(order), "hmac-sha256:" + "0" * 64)
    new = new_world(store_epoch=2)
    with pytest.raises(EyasError, match="receipt"):
        new.rank(attempt=2, checkpoint=rank.checkpoint).reconcile()


def test_hazard_36_a_drain_comes_with_the_next_order_and_is_the_same_when_it_is_asked_again(
    new_world: NewWorld,
) -> None:
    world = new_world(every_steps=100)
    producer, rank = started(world, [TOKENS] * 32)
    producer.produce()
    rank.run(4)
    world.call(wire.DRAIN, wire.DrainRequest(attempt=1, reason="node"))
    first = rank.order()
    assert first is not None
    assert (first.kind, first.last, first.reason) == ("checkpoint", True, "drain")
    world.restart()
    rank.ordinal -= 1
    assert rank.order() == first
    rank.save(first)
    assert rank.order() is None


def test_hazard_36_a_drain_does_not_stop_the_next_incarnation(new_world: NewWorld) -> None:
    world = new_world(every_steps=100)
    producer, rank = started(world, [TOKENS] * 8)
    producer.produce()
    rank.run(4)
    world.call(wire.DRAIN, wire.DrainRequest(attempt=1, reason="node"))
    order = rank.order()
    assert order is not None
    rank.save(order)
    world.call(wire.DRAIN, wire.DrainRequest(attempt=1, reason="node"))
    world.call(wire.EXIT, wire.ExitRequest(attempt=1, rank=0, process=rank.process, code=75))
    again = world.rank(attempt=2, checkpoint=rank.checkpoint)
    again.reconcile()
    world.run_to_the_end(producer, again)
    assert world.audit().trained_once == 8


def test_hazard_36_a_drain_of_an_older_attempt_is_refused(new_world: NewWorld) -> None:
    world = new_world()
    producer, _ = started(world, [TOKENS] * 8)
    producer.produce()
    world.rank(attempt=2).reconcile()
    with pytest.raises(Fenced):
        world.call(wire.DRAIN, wire.DrainRequest(attempt=1, reason="node"))


def test_hazard_37_a_sealed_window_whose_sample_cannot_be_captured_again_gets_a_hole_and_goes_on(
    new_world: NewWorld,
) -> None:
    world = new_world()
    producer, rank = started(world, [TOKENS] * 8)
    producer.produce()
    train = order_of(rank, "train")
    ref = train.entries[0].ref
    assert ref is not None
    lost = wire.LostSample(sequence=ref.sequence, generation=ref.generation, reason="gone")
    world.call(wire.LOST, wire.LostRequest(incarnation=rank.incarnation, samples=(lost,)))
    lease = producer.must_lease()
    failure = wire.CaptureFailure(sequence=ref.sequence, reason="cannot be read", poison=True)
    world.call(
        wire.CAPTURE_FAIL,
        wire.CaptureFailRequest(
            holder=producer.holder, lease_id=lease.lease_id, token=lease.token, failures=(failure,)
        ),
    )
    with pytest.raises(Closed):
        world.call(
            wire.REFS,
            wire.RefsRequest(incarnation=rank.incarnation, step=1, version=train.version, sequences=(ref.sequence,)),
        )
    again = world.rank()
    again.reconcile()
    order = order_of(again, "train")
    assert order.version > train.version
    assert [entry.ref is None for entry in order.entries] == [True, False]
    again.obey(order)
    world.run_to_the_end(producer, again)
    audit = world.audit()
    assert (audit.trained_once, audit.dead_lettered, audit.missing) == (7, 1, 0)


def test_hazard_39_a_rank_that_dies_in_one_pod_is_told_to_the_supervisor_of_the_other(new_world: NewWorld) -> None:
    world = new_world()
    producer = world.producer()
    producer.prepare([TOKENS] * 8)
    rank = world.rank()
    request = wire.ReconcileRequest(
        attempt=1, world_size=2, process=rank.process, fingerprint=wire.Fingerprint(facts={}, digest="d"),
        checkpoint=None,
    )  # fmt: skip
    world.call(wire.RECONCILE, request)
    other = "b" * 32
    joined = world.call(wire.JOIN, wire.JoinRequest(attempt=1, rank=1, process=other))
    assert joined.incarnation is not None
    watch = wire.WatchRequest(attempt=1, processes=(other, rank.process))
    assert world.call(wire.WATCH, watch).closed == ()
    world.call(wire.EXIT, wire.ExitRequest(attempt=1, rank=0, process=rank.process, code=-9))
    assert set(world.call(wire.WATCH, watch).closed) == {other, rank.process}


def test_hazard_39_the_start_may_take_long_but_not_for_ever(new_world: NewWorld) -> None:
    world = new_world()
    producer, _ = started(world, [TOKENS] * 8)
    producer.produce()
    world.pass_time(1799.0, period=60.0)
    assert world.status().gang == "open"
    world.pass_time(2.0)
    assert world.status().gang == "closed"


def test_hazard_39_no_data_is_no_hang(new_world: NewWorld) -> None:
    world = new_world()
    _, rank = started(world, [TOKENS] * 8)
    world.pass_time(1900.0)
    assert world.status().gang == "open"
    assert rank.order() is None


def test_hazard_39_a_checkpoint_writer_that_stalls_is_a_hang_also_without_data(new_world: NewWorld) -> None:
    world = new_world()
    producer, rank = started(world, [TOKENS] * 8)
    producer.produce(1)
    order_of(rank, "checkpoint")
    world.pass_time(599.0, every=beating(world, rank), period=5.0)
    assert world.status().gang == "open"
    world.pass_time(2.0)
    assert world.status().gang == "closed"
    assert "checkpoint at step 1" in world.status().incidents[-1].message


def test_hazard_41_under_a_kill_every_few_steps_the_job_still_ends(new_world: NewWorld) -> None:
    world = new_world(every_steps=50)
    producer, rank = started(world, [TOKENS] * 64)
    kills = 0
    while True:
        producer.produce()
        if rank.run(4):
            break
        kills += 1
        assert kills < 100
        world.call(wire.EXIT, wire.ExitRequest(attempt=1, rank=0, process=rank.process, code=-9))
        rank = world.rank(checkpoint=rank.checkpoint)
        rank.reconcile()
    audit = world.audit()
    assert (audit.trained_once, audit.trained_twice, audit.missing) == (64, 0, 0)
    assert kills > 5
