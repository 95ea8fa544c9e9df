"""Claims about single calls, without HTTP and in virtual time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyas_contract import wire
from eyas_contract.config import EvaluationConfig
from eyas_contract.errors import Conflict, EyasError, UserError
from support.metadata_service import job_config, prepared_inputs
from support.service_world import World
from support.small_job import Producer, Rank

COUNTS = [8] * 8
NewWorld = Callable[..., World]


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[NewWorld]:
    worlds: list[World] = []

    def make(**config: Any) -> World:  # noqa: ANN401
        worlds.append(World(tmp_path, job_config(tmp_path, **config), in_memory=True))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


def started(world: World) -> tuple[Producer, Rank]:
    """A producer that has prepared and a rank that has reconciled."""
    producer = world.producer()
    producer.prepare(COUNTS)
    rank = world.rank()
    rank.reconcile()
    return producer, rank


def verdict(producer: Producer) -> str:
    return producer.caller.call(wire.PREPARE, wire.PrepareRequest(holder=producer.holder)).verdict


def two_producers(world: World) -> tuple[Producer, Producer]:
    first, second = world.producer(0), world.producer(1)
    first.register()
    second.register()
    return first, second


def test_one_producer_at_a_time_is_told_to_prepare(new_world: NewWorld) -> None:
    first, second = two_producers(new_world())
    assert verdict(first) == "yours"
    assert verdict(second) == "wait"
    assert verdict(first) == "yours"


def test_whoever_replaces_the_preparing_process_takes_over_at_once(new_world: NewWorld) -> None:
    world = new_world()
    first, second = two_producers(world)
    verdict(first)
    again = world.producer(0, restart=1)
    again.register()
    assert verdict(second) == "yours"


def test_a_producer_that_vanishes_while_it_prepares_is_not_waited_for_for_ever(new_world: NewWorld) -> None:
    world = new_world()
    first, second = two_producers(world)
    verdict(first)
    world.pass_time(119.0)
    assert verdict(second) == "wait"
    world.pass_time(2.0)
    assert verdict(second) == "yours"


def test_a_producer_that_shows_life_keeps_its_turn_to_prepare(new_world: NewWorld) -> None:
    world = new_world()
    first, second = two_producers(world)
    verdict(first)
    world.pass_time(300.0, every=first.renew, period=30.0)
    assert verdict(second) == "wait"


def test_the_first_prepared_inputs_win_and_others_must_be_equal(new_world: NewWorld) -> None:
    world = new_world()
    first, second = two_producers(world)
    first.prepare(COUNTS)
    assert verdict(second) == "done"
    equal = wire.PrepareCommitRequest(holder=second.holder, prepared=prepared_inputs(COUNTS))
    world.call(wire.PREPARE_COMMIT, equal)
    other = wire.PrepareCommitRequest(holder=second.holder, prepared=prepared_inputs([9] * 8))
    with pytest.raises(UserError):
        world.call(wire.PREPARE_COMMIT, other)
    reply = world.call(wire.PREPARED, wire.PreparedRequest())
    assert reply.prepared == prepared_inputs(COUNTS)


def test_a_new_process_of_a_producer_frees_at_once_what_the_old_one_held(new_world: NewWorld) -> None:
    world = new_world()
    producer, _ = started(world)
    lease = producer.must_lease()
    again = world.producer(0, restart=1)
    again.register()
    assert again.must_lease().group == lease.group


def test_nobody_returns_the_lease_of_another(new_world: NewWorld) -> None:
    world = new_world()
    producer, _ = started(world)
    lease = producer.must_lease()
    other = world.producer(1)
    other.register()
    world.call(wire.RETURN, wire.ReturnRequest(holder=other.holder, lease_ids=(lease.lease_id,)))
    assert producer.commit(lease) == (0, 1)


def test_a_returned_lease_is_given_to_the_next_who_asks(new_world: NewWorld) -> None:
    world = new_world()
    producer, _ = started(world)
    lease = producer.must_lease()
    world.call(wire.RETURN, wire.ReturnRequest(holder=producer.holder, lease_ids=(lease.lease_id,)))
    assert producer.must_lease().group == lease.group
    with pytest.raises(EyasError):
        producer.commit(lease)


def test_a_committed_lease_needs_no_renewal_and_ends_nothing(new_world: NewWorld) -> None:
    world = new_world()
    producer, _ = started(world)
    lease = producer.must_lease()
    producer.commit(lease)
    assert producer.renew(lease.lease_id) == ()
    world.pass_time(40.0)
    assert (world.status().samples_ready, world.status().incidents) == (2, ())


def test_groups_are_leased_strictly_by_lowest_sequence_number_new_and_lost_alike(new_world: NewWorld) -> None:
    world = new_world()
    producer, rank = started(world)
    producer.produce(3)
    order = rank.order()
    assert order is not None
    ref = order.entries[1].ref
    assert ref is not None
    lost = wire.LostSample(sequence=ref.sequence, generation=ref.generation, reason="gone")
    world.call(wire.LOST, wire.LostRequest(incarnation=rank.incarnation, samples=(lost,)))
    assert [producer.must_lease().group for _ in range(2)] == [0, 3]


def test_hazard_15_a_recaptured_member_is_batched_with_its_whole_group(new_world: NewWorld) -> None:
    world = new_world()
    producer, rank = started(world)
    first = producer.must_lease()
    producer.commit(first)
    order = rank.order()
    assert order is not None
    ref = order.entries[1].ref
    assert ref is not None
    lost = wire.LostSample(sequence=ref.sequence, generation=ref.generation, reason="gone")
    world.call(wire.LOST, wire.LostRequest(incarnation=rank.incarnation, samples=(lost,)))
    again = producer.must_lease()
    assert [task.sequence for task in again.tasks] == [task.sequence for task in first.tasks]
    assert [task.capture for task in again.tasks] == [False, True]
    assert again.padded_length == first.padded_length


def test_a_producer_is_finished_only_when_nothing_can_be_lost_any_more(new_world: NewWorld) -> None:
    world = new_world()
    producer, rank = started(world)
    producer.produce()
    assert not producer.lease().finished
    world.run_to_the_end(producer, rank)
    assert producer.lease().finished


def test_a_full_store_says_why_nothing_is_leased(new_world: NewWorld) -> None:
    world = new_world(max_resident_bytes=2000)
    producer, _ = started(world)
    producer.produce()
    assert "the store is full" in producer.lease().paused
    assert world.status().paused == producer.lease().paused
    assert world.status().cap_bytes == 2000


def test_a_store_that_can_never_hold_a_window_fails_the_job_with_what_to_do(new_world: NewWorld) -> None:
    world = new_world(max_resident_bytes=300)
    producer, _ = started(world)
    producer.produce()
    assert world.status().phase == "Failed"
    assert "maxResidentBytes" in world.status().failure
    assert producer.lease().finished


def test_a_drained_gang_that_starts_again_in_the_same_attempt_trains_on(new_world: NewWorld) -> None:
    world = new_world(every_steps=100)
    producer, rank = started(world)
    producer.produce()
    rank.run(1)
    world.call(wire.DRAIN, wire.DrainRequest(attempt=1, reason="node"))
    last = rank.order()
    assert last is not None
    assert last.reason == "drain"
    rank.save(last)
    world.call(wire.EXIT, wire.ExitRequest(attempt=1, rank=0, process=rank.process, code=75))
    again = world.rank(checkpoint=rank.checkpoint)
    again.reconcile()
    order = again.order()
    assert order is not None
    assert (order.kind, order.step) == ("train", 2)


def test_orders_are_asked_for_in_turn(new_world: NewWorld) -> None:
    world = new_world()
    producer, rank = started(world)
    producer.produce()
    rank.ordinal = 1
    with pytest.raises(Conflict):
        rank.order()


@pytest.mark.parametrize("rank_number", [-1, 1, 1 << 40])
def test_a_rank_that_does_not_exist_has_no_heartbeat(new_world: NewWorld, rank_number: int) -> None:
    world = new_world()
    _, rank = started(world)
    beat = wire.HeartbeatRequest(incarnation=rank.incarnation, rank=rank_number, counter=1, phase="working")
    with pytest.raises(UserError):
        world.call(wire.HEARTBEAT, beat)


def test_the_pace_and_the_last_advance_are_measured_here(new_world: NewWorld) -> None:
    world = new_world()
    producer, rank = started(world)
    producer.produce()
    world.pass_time(30.0)
    assert world.status().seconds_since_advance == pytest.approx(30.0)
    while rank.trained != [1, 2, 3]:
        rank.run(1)
        world.pass_time(1.0)
    status = world.status()
    assert status.seconds_since_advance <= 2.0
    assert 0.2 <= status.steps_per_second <= 1.0


def test_metrics_are_given_in_pages(new_world: NewWorld) -> None:
    world = new_world()
    producer, rank = started(world)
    producer.produce()
    world.run_to_the_end(producer, rank)
    page = world.call(wire.METRICS, wire.MetricsRequest(after_step=1, limit=2))
    assert [entry.step for entry in page.steps] == [2, 3]
    assert world.call(wire.METRICS, wire.MetricsRequest(limit=-5)).steps == ()


def test_a_job_that_was_failed_stays_failed_over_a_restart(new_world: NewWorld) -> None:
    world = new_world()
    producer, _ = started(world)
    world.job.mark_failed("first reason")
    world.job.mark_failed("second reason")
    world.restart()
    assert (world.status().phase, world.status().failure) == ("Failed", "first reason")
    assert producer.lease().finished


def test_a_restart_in_a_pod_is_one_incident_over_a_restart_of_the_service(new_world: NewWorld) -> None:
    world = new_world()
    told = wire.RestartRequest(role="producer", index=1, serial=3, time=world.job.clock.wall() - 2.0, reason="SIGKILL")
    world.call(wire.RESTART, told)
    world.restart()
    world.call(wire.RESTART, told)  # The answer may be lost; the incident is one all the same.
    world.call(wire.RESTART, msgspec.structs.replace(told, ready=world.job.clock.wall()))
    (incident,) = world.job.store.status().incidents
    assert (incident.unit, incident.klass, incident.serial) == ("producer-1", "ChildExited", 3)
    assert "SIGKILL" in incident.message
    assert incident.replaced - incident.detected == pytest.approx(2.0)
    assert incident.recovered == 0.0


def test_evaluation_that_outlives_every_gang_becomes_durable(tmp_path: Path) -> None:
    """Two optimizer steps, then six windows of held-out samples; each gang dies after it has done one window."""
    evaluation = EvaluationConfig(prompts=("/data/held-out.jsonl",), every_steps=2)
    config = msgspec.structs.replace(job_config(tmp_path, every_steps=1), evaluation=evaluation)
    world = World(tmp_path, config, in_memory=True)
    producer, rank = world.producer(), world.rank()
    producer.register()
    inputs = msgspec.structs.replace(prepared_inputs([8] * 16), prompt_count=4, held_out_count=12)
    producer.caller.call(wire.PREPARE_COMMIT, wire.PrepareCommitRequest(holder=producer.holder, prepared=inputs))
    producer.produce()
    for window in range(1, 8):
        rank = world.rank(checkpoint=rank.checkpoint)
        rank.reconcile()
        rank.run(2)
        assert [(order.kind, order.step) for order in rank.orders] == [("train", window), ("checkpoint", window)]


def test_the_service_that_hears_of_its_own_restart_is_the_successor(new_world: NewWorld) -> None:
    world = new_world()
    now = world.job.clock.wall()
    world.call(wire.RESTART, wire.RestartRequest(role="metadata", index=0, serial=1, time=now - 2.0, reason="SIGKILL"))
    (incident,) = world.job.store.status().incidents
    assert (incident.unit, incident.detected, incident.replaced) == ("metadata", now - 2.0, now)
