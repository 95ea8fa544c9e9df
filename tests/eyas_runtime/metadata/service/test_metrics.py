"""Claims about `/metrics`: every documented name is there, parses, and says what happened."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eyas_contract import wire
from eyas_runtime.metadata.service.prometheus import Telemetry
from eyas_runtime.metadata.service.work import Work
from support.metadata_service import job_config
from support.operator_world import a_report
from support.service_world import World
from support.small_job import Producer, Rank

DOCUMENTED = {
    "eyas_job_info", "eyas_queue_lag_samples", "eyas_store_resident_bytes", "eyas_samples_produced_total",
    "eyas_samples_acked_total", "eyas_samples_replayed_total", "eyas_samples_lost_total",
    "eyas_samples_applied_twice_total", "eyas_samples_missing_total", "eyas_lost_work_seconds_total",
    "eyas_goodput_ratio", "eyas_open_incidents",
}  # fmt: skip
NOT_TOLD = {
    "eyas_queue_lag_samples", "eyas_samples_replayed_total", "eyas_samples_applied_twice_total",
    "eyas_samples_missing_total", "eyas_lost_work_seconds_total", "eyas_goodput_ratio",
}  # fmt: skip
TOKENS = 8
NewWorld = Callable[..., World]
LABELS = {"job", "store_epoch", "phase", "call", "code", "reason", "le"}


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[NewWorld]:
    worlds: list[World] = []

    def make(**config: Any) -> World:  # noqa: ANN401
        worlds.append(World(tmp_path, job_config(tmp_path, **config)))
        return worlds[-1]

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


def scrape(status: wire.StatusReply) -> dict[str, float]:
    telemetry = Telemetry("demo")
    telemetry.observe("/v1/status", 200, 0.01)
    text = telemetry.render(status).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert all(set(sample.labels) <= LABELS for sample in samples)
    assert all(sample.name.startswith("eyas_") for sample in samples)
    return {sample.name: sample.value for sample in samples}


def test_every_documented_metric_is_there_and_parses(new_world: NewWorld) -> None:
    world = new_world()
    started(world, [TOKENS] * 4)
    world.pass_time(1.0)
    assert set(scrape(world.status())) >= DOCUMENTED


def test_what_is_not_told_has_no_series() -> None:
    assert set(scrape(a_report())) >= DOCUMENTED - NOT_TOLD
    assert not set(scrape(a_report())) & NOT_TOLD


def test_a_family_is_declared_once(new_world: NewWorld) -> None:
    world = new_world()
    started(world, [TOKENS] * 4)
    text = Telemetry("demo").render(world.status()).decode()
    declared = [line.split()[2].removesuffix("_total") for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(declared) == len(set(declared))


def test_a_history_of_a_replay_a_loss_and_two_restarts_of_the_service_is_counted_as_it_was(new_world: NewWorld) -> None:
    """12 windows of 2 samples, 0.5 s each, over the real database; ranks go back from 6 to 3 and lose a sample."""
    world = new_world(every_steps=100)
    producer, rank = started(world, [TOKENS] * 24)
    producer.produce()
    train_until(rank, 6)
    assert numbers(world) == {"replayed": 0, "lost": 0, "twice": 0, "missing": 0, "work": 0.0}
    rank = again(world, rank)
    assert rank.checkpoint is not None
    assert rank.checkpoint.step == 3
    train_until(rank, 5)
    assert numbers(world) == {"replayed": 4, "lost": 0, "twice": 0, "missing": 0, "work": 1.0}
    world.restart()
    assert numbers(world) == {"replayed": 4, "lost": 0, "twice": 0, "missing": 0, "work": 0.0}
    ref = train_until(rank, 7).prefetch[1]
    assert numbers(world) == {"replayed": 6, "lost": 0, "twice": 0, "missing": 0, "work": 0.5}

    gone = wire.LostSample(sequence=ref.sequence, generation=ref.generation, reason="digest mismatch")
    world.call(wire.LOST, wire.LostRequest(incarnation=rank.incarnation, samples=(gone,)))
    assert world.status().samples_recaptured == 0
    world.restart()
    world.run_to_the_end(producer, rank)
    assert numbers(world) == {"replayed": 6, "lost": 1, "twice": 0, "missing": 0, "work": 0.0}
    audit = world.audit()
    assert (audit.trained_once, audit.trained_twice, audit.missing) == (24, 0, 0)


def test_goodput_is_the_time_in_which_windows_were_trained_for_the_first_time(new_world: NewWorld) -> None:
    world = new_world(every_steps=100)
    assert world.status().goodput_ratio is None
    producer, rank = started(world, [TOKENS] * 8)
    producer.produce()
    world.clock.advance(1.0)
    train_until(rank, 2)
    world.clock.advance(1.0)
    assert world.status().goodput_ratio == pytest.approx(2 * 0.5 / 2.0)
    rank = again(world, rank)
    train_until(rank, 2)
    world.clock.advance(2.0)
    assert world.status().goodput_ratio == pytest.approx(2 * 0.5 / 4.0)
    world.run_to_the_end(producer, rank)
    at_the_end = world.status().goodput_ratio
    assert at_the_end is not None
    assert at_the_end > 0.25
    world.clock.advance(1000.0)
    assert world.status().goodput_ratio == at_the_end


def test_a_service_that_finds_ranks_measures_from_its_own_start(new_world: NewWorld) -> None:
    world = new_world()
    producer, rank = started(world, [TOKENS] * 8)
    producer.produce()
    world.restart()
    world.clock.advance(4.0)
    assert world.status().goodput_ratio == 0.0
    train_until(rank, 1)
    assert world.status().goodput_ratio == pytest.approx(0.5 / 4.0)


def test_a_repeated_ack_is_no_second_work() -> None:
    work = Work()
    work.gang_opened(checkpoint_step=0, now=0.0)
    for step in (1, 1, 2, 1):
        work.stepped(step, 2.0, now=8.0)
    assert (work.lost_seconds, work.goodput(now=8.0)) == (0.0, 0.5)


def test_windows_that_another_life_of_the_service_saw_are_trained_again() -> None:
    work = Work(reached_step=5, acked_step=2, began=0.0)
    for step in (3, 4, 5, 6):
        work.stepped(step, 1.0, now=4.0)
    assert (work.lost_seconds, work.goodput(now=4.0)) == (3.0, 0.25)


@pytest.mark.parametrize("nonsense", [None, float("nan"), float("inf"), -1.0, 1e9])
def test_a_duration_that_cannot_be_is_no_work(nonsense: float | None) -> None:
    work = Work(reached_step=1, began=0.0)
    for step in (1, 2):
        work.stepped(step, nonsense, now=5.0)
    assert (work.lost_seconds, work.goodput(now=10.0)) == (0.0, 0.0)


def test_ranks_that_say_more_than_the_clock_make_no_goodput_above_one() -> None:
    work = Work(began=0.0)
    work.stepped(1, 50.0, now=5.0)
    assert work.goodput(now=10.0) == 1.0


def test_open_incidents_are_those_without_work_after_them() -> None:
    over = wire.Incident(klass="Hang", unit="consumers", message="m", detected=1.0, recovered=2.0)
    still = wire.Incident(klass="Hang", unit="consumers", message="m", detected=3.0)
    assert scrape(a_report(incidents=(over, still)))["eyas_open_incidents"] == 1.0


def train_until(rank: Rank, step: int) -> wire.Order:
    """Train up to a window; the last order."""
    while (order := rank.order()) is not None:
        rank.obey(order)
        if order.kind == "train" and order.step == step:
            return order
    raise AssertionError(f"window {step} was not ordered")


def again(world: World, rank: Rank) -> Rank:
    """The ranks were killed and start again."""
    successor = world.rank(checkpoint=rank.checkpoint)
    successor.reconcile()
    return successor


def numbers(world: World) -> dict[str, float]:
    """What the service's `/metrics` says."""
    seen = scrape(world.status())
    names = {
        "replayed": "samples_replayed", "lost": "samples_lost", "twice": "samples_applied_twice",
        "missing": "samples_missing", "work": "lost_work_seconds",
    }  # fmt: skip
    return {short: seen[f"eyas_{name}_total"] for short, name in names.items()}
