"""Claims about the sweeper: what it deletes, what it finds missing, what it leaves alone in trouble."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from eyas_contract import wire
from eyas_contract.errors import Transient
from eyas_runtime import failpoints
from eyas_runtime.metadata.service.prometheus import Telemetry
from eyas_runtime.metadata.service.sweeper import SWEEP_SECONDS, SWEEP_SECONDS_MIN, Sweeper
from support.metadata_service import job_config
from support.service_world import DirectThread, World
from support.small_job import Producer, Rank

COUNTS = [8] * 8


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, job_config(tmp_path, every_steps=1), in_memory=True)
    yield made
    failpoints.disarm()
    made.close()


def produced(world: World) -> tuple[Producer, Rank]:
    producer = world.producer()
    producer.prepare(COUNTS)
    producer.produce()
    rank = world.rank()
    rank.reconcile()
    return producer, rank


class Trouble:
    """The world's pool with some calls replaced."""

    def __init__(self, world: World, **calls: Callable[..., Any]) -> None:
        self._blobs = world.blobs
        self._calls = calls

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return self._calls.get(name) or getattr(self._blobs, name)


def away(*_: object) -> None:
    raise Transient("the pool is away")


def test_objects_of_durable_windows_are_released_and_no_others(world: World) -> None:
    _, rank = produced(world)
    rank.run(2)
    assert rank.orders[-1].kind == "checkpoint"
    trained = {entry.ref.key for entry in rank.orders[0].entries if entry.ref is not None}
    before = set(world.pool.blobs)
    assert world.sweeper.release() == 2
    assert before - set(world.pool.blobs) == trained
    assert world.store.usage().resident_objects == 6


def test_an_object_that_a_reader_holds_is_released_later(world: World) -> None:
    _, rank = produced(world)
    rank.run(2)
    world.sweeper._blobs = Trouble(world, delete=lambda _: False)
    assert world.sweeper.release() == 0
    assert world.store.usage().garbage_bytes > 0
    world.sweeper._blobs = world.blobs
    assert world.sweeper.release() == 2


@pytest.mark.parametrize("place", ["release.before_delete", "release.after_delete"])
def test_a_crash_around_a_delete_repeats_it_without_harm(world: World, place: str) -> None:
    _, rank = produced(world)
    rank.run(2)
    failpoints.arm(f"{place}=error@1")
    with pytest.raises(OSError, match=place):
        world.sweeper.release()
    failpoints.disarm()
    world.restart()
    assert world.sweeper.release() == 2
    assert world.store.usage().resident_objects == len(world.pool.blobs) == 6


def test_missing_objects_are_found_without_anybody_reading_them(world: World) -> None:
    producer, _ = produced(world)
    for key in sorted(world.pool.blobs)[:3]:
        world.blobs.delete(key)
    assert world.sweep() == (0, 3)
    assert world.status().samples_lost == 3
    producer.produce()
    assert (world.status().samples_lost, world.status().samples_ready) == (0, 8)


def test_a_pool_that_forgot_everything_is_captured_again(world: World) -> None:
    producer, rank = produced(world)
    world.pool.blobs.clear()
    world.pool.used_bytes = 0
    assert world.sweep() == (0, 8)
    world.run_to_the_end(producer, rank)
    assert world.audit().trained_once == 8


def test_sweeps_that_came_to_an_end_are_counted_and_no_others(world: World) -> None:
    produced(world)
    world.sweep()
    world.sweeper._blobs = Trouble(world, exists_many=away, list=lambda _: [])
    with pytest.raises(Transient):
        world.sweep()
    text = world.telemetry.render(world.status()).decode()
    assert 'eyas_store_sweeps_total{job="test"} 1.0' in text.splitlines()


def test_an_object_of_another_length_is_as_good_as_none(world: World) -> None:
    produced(world)
    key = sorted(world.pool.blobs)[0]
    world.pool.blobs[key] = world.pool.blobs[key][:-1]
    assert world.sweep() == (0, 1)


@pytest.mark.parametrize("call", ["list", "exists_many", "delete"])
def test_a_pool_that_is_away_loses_nothing(world: World, call: str) -> None:
    _, rank = produced(world)
    rank.run(2)
    listing: Callable[[str], Sequence[Any]] = lambda _: []  # noqa: E731
    calls: dict[str, Callable[..., Any]] = {"list": listing, call: away}
    world.sweeper._blobs = Trouble(world, **calls)
    with pytest.raises(Transient):
        world.sweep()
    assert world.status().samples_lost == 0
    # Only what was released may be gone.
    assert len(world.pool.blobs) == (8 if call == "delete" else 6)


def test_a_listing_that_leaves_something_out_loses_nothing(world: World) -> None:
    produced(world)
    world.sweeper._blobs = Trouble(world, list=lambda _: [])
    assert world.sweeper.sweep() == (0, 0)
    assert world.status().samples_lost == 0


def test_what_is_not_ours_is_left_alone(world: World) -> None:
    produced(world)
    foreign = "eyas.otherjob1.e1.g1." + "a" * 32
    world.blobs.put(foreign, b"x")
    world.sweep()
    assert foreign in world.pool.blobs


def test_released_rows_of_a_pool_in_another_process_are_forgotten(world: World) -> None:
    _, rank = produced(world)
    rank.run(2)
    sweeper = Sweeper(
        open_blobs=lambda: None,
        worker=DirectThread(),
        job=lambda: world.job,
        telemetry=Telemetry("test"),
        monotonic=world.clock.monotonic,
    )
    sweeper.once()
    assert sweeper.sweep() == (0, 0)
    assert world.store.usage().resident_objects == 6


class Counting(Trouble):
    """Counts listings."""

    def __init__(self, world: World) -> None:
        self.listings = 0
        super().__init__(world, list=self._list)

    def _list(self, prefix: str) -> Any:  # noqa: ANN401
        self.listings += 1
        return self._blobs.list(prefix)


def test_the_pool_is_listed_once_a_minute_and_sooner_when_something_is_suspected(world: World) -> None:
    _, rank = produced(world)
    world.sweeper.once()
    counting = Counting(world)
    world.sweeper._blobs = counting
    world.clock.advance(SWEEP_SECONDS - 1.0)
    world.sweeper.once()
    assert counting.listings == 0
    world.clock.advance(1.0)
    world.sweeper.once()
    world.sweeper.once()
    assert counting.listings == 1
    world.job.want_sweep = world.sweeper.want_sweep
    order = rank.order()
    assert order is not None
    ref = order.entries[0].ref
    assert ref is not None
    lost = wire.LostSample(sequence=ref.sequence, generation=ref.generation, reason="gone")
    world.call(wire.LOST, wire.LostRequest(incarnation=rank.incarnation, samples=(lost,)))
    world.sweeper.once()
    assert counting.listings == 1
    world.clock.advance(SWEEP_SECONDS_MIN)
    world.sweeper.once()
    assert counting.listings == 2


def test_after_the_end_it_sweeps_until_late_puts_are_gone(world: World) -> None:
    producer, rank = produced(world)
    world.run_to_the_end(producer, rank)
    world.sweep()
    late = "eyas.testjob0.e1.g77." + "b" * 32
    world.blobs.put(late, b"from a producer that was about to be deleted")
    world.clock.advance(SWEEP_SECONDS_MIN)
    world.sweeper.once()
    assert world.pool.blobs == {}
