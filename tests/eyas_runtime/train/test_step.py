"""One window on several ranks: those that share a sample train the same capture of it; nobody else pays for that."""

import threading
from collections.abc import Sequence

import pytest

from eyas_contract import wire
from eyas_contract.errors import Corrupt, UserError
from eyas_runtime.train import generations
from eyas_runtime.train.data import WindowData
from eyas_runtime.train.evaluation import Measured
from eyas_runtime.train.fake import POISON, POISON_LOSS, FakeTrainer
from eyas_runtime.train.generations import NOT_MINE
from eyas_runtime.train.group import SoloGroup
from eyas_runtime.train.heartbeat import Work
from eyas_runtime.train.ports import REASONS, Code, MicroBatch
from eyas_runtime.train.step import WindowResult, WindowStep
from eyas_runtime.train.window import data_place, share_of
from support.checkpoints import ThreadGroup, thread_groups
from support.scripted_source import ScriptedSource, ref

ORDER = wire.Order(
    ordinal=0, kind="train", step=1, entries=tuple(wire.WindowEntry(sequence=i, ref=ref(i)) for i in range(4))
)
FIRST = {f"key-{i}-1": f"first {i}".encode() for i in range(4)}
SECOND = {f"key-{i}-2": f"second {i}".encode() for i in range(4)}
THIRD = {f"key-{i}-3": f"third {i}".encode() for i in range(4)}


class RecordingTrainer(FakeTrainer):
    """Remembers the samples it was given, by place."""

    def __init__(self, group: ThreadGroup) -> None:
        super().__init__(group, seed=0)
        self.trained: dict[int | None, bytes | None] = {}
        self.initialise()

    def accumulate(self, batch: MicroBatch[bytes], denominator: float) -> tuple[int, ...]:
        self.trained.update(zip(batch.places, batch.samples, strict=True))
        return super().accumulate(batch, denominator)


def train(sources: Sequence[ScriptedSource], ranks_per_sample: int) -> list[dict[int | None, bytes | None]]:
    """What each rank trained of one window."""
    groups = thread_groups(len(sources))
    trainers = [RecordingTrainer(group) for group in groups]
    failures: list[BaseException] = []

    def run(rank: int) -> None:
        place, places = data_place(rank=rank, world_size=len(sources), ranks_per_sample=ranks_per_sample)
        share = share_of(ORDER, rank=place, world_size=places, micro_batch_size=1)
        data = WindowData(sources[rank], trainers[rank], Work())
        data.start(share, [])
        step = WindowStep(
            share, data, trainers[rank], groups[rank], Work(), "AllPositions", ranks_per_sample=ranks_per_sample
        )
        try:
            step.run()
        except BaseException as error:  # noqa: BLE001  handed to the test
            failures.append(error)
        finally:
            data.close()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(sources))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    return [trainer.trained for trainer in trainers]


def source_of(**changes: bytes | Exception) -> ScriptedSource:
    source = ScriptedSource(**{**FIRST, **SECOND, **THIRD, **changes})
    source.recaptured = {i: ref(i, 2) for i in range(4)}
    return source


@pytest.mark.parametrize("poison", [POISON, POISON_LOSS], ids=["content", "loss"])
def test_hazard_11_what_one_rank_alone_condemns_is_condemned_on_every_rank_before_the_weights_move(
    poison: bytes,
) -> None:
    groups = thread_groups(2)
    results: dict[int, WindowResult] = {}
    trainers = [RecordingTrainer(group) for group in groups]

    def run(rank: int) -> None:
        share = share_of(ORDER, rank=rank, world_size=2, micro_batch_size=1)
        data = WindowData(source_of(**{"key-1-1": poison}), trainers[rank], Work())
        data.start(share, [])
        step = WindowStep(share, data, trainers[rank], groups[rank], Work(), "AllPositions", ranks_per_sample=1)
        results[rank] = step.run()
        data.close()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sum(1 in trainer.trained for trainer in trainers) == 1, "one rank alone has seen the sample"
    assert [verdict.sequence for verdict in results[0].verdicts] == [1]
    assert results[0].verdicts == results[1].verdicts
    assert [results[rank].metrics["live_samples"] for rank in range(2)] == [3.0, 3.0]
    assert [results[rank].metrics["denominator"] for rank in range(2)] == [12.0, 12.0]


@pytest.mark.parametrize("unlucky", [0, 1])
def test_ranks_that_share_a_sample_train_the_same_capture_though_one_of_them_lost_the_first(unlucky: int) -> None:
    sources = [source_of(), source_of()]
    sources[unlucky].answers["key-2-1"] = Corrupt("torn")
    mine, other = train(sources, ranks_per_sample=2)
    assert mine == other == {0: b"first 0", 1: b"first 1", 2: b"second 2", 3: b"first 3"}
    assert [len(source.reported) for source in sources] == [int(rank == unlucky) for rank in range(2)]


def test_they_agree_though_captures_are_lost_one_after_the_other() -> None:
    sources = [source_of(**{"key-1-1": Corrupt("torn")}), source_of(**{"key-1-2": Corrupt("torn")})]

    def report_second(samples: Sequence[wire.LostSample]) -> None:
        for source in sources:
            source.recaptured[1] = ref(1, 3)

    sources[1].report_lost = report_second  # type: ignore[method-assign]
    mine, other = train(sources, ranks_per_sample=2)
    assert mine == other
    assert mine[1] == b"third 1"


def test_only_the_ranks_that_share_the_lost_sample_ask_for_it_again() -> None:
    place = next(iter(share_of(ORDER, rank=1, world_size=2, micro_batch_size=1).mine()))
    sources = [source_of() for _ in range(4)]
    sources[3].answers[f"key-{place}-1"] = Corrupt("torn")
    trained = train(sources, ranks_per_sample=2)
    assert trained[2] == trained[3]
    assert trained[2][place] == f"second {place}".encode()
    assert [source.asked for source in sources] == [[], [], [(place,)], [(place,)]]


def test_ranks_that_share_nothing_exchange_one_byte_a_place_as_the_first_word_of_a_window() -> None:
    class CountingGroup(SoloGroup):
        def __init__(self) -> None:
            self.sent: list[bytes] = []

        def all_gather(self, data: bytes) -> list[bytes]:
            self.sent.append(data)
            return super().all_gather(data)

    group, share = CountingGroup(), share_of(ORDER, rank=0, world_size=1, micro_batch_size=1)
    trainer = FakeTrainer(SoloGroup(), seed=0)
    trainer.initialise()
    data = WindowData(source_of(), trainer, Work())
    data.start(share, [])
    WindowStep(share, data, trainer, group, Work(), "AllPositions", ranks_per_sample=1).run()
    data.close()
    assert [len(message) for message in group.sent] == [4, 4 + 8 * len(trainer.totals())]


def test_only_places_that_two_ranks_hold_differently_are_disputed() -> None:
    parts = [generations.encode(held) for held in ([1, 5, NOT_MINE, NOT_MINE], [1, 4, 0, NOT_MINE])]
    assert generations.merge(parts) == ((1, 5, 0, NOT_MINE), frozenset({1}))


class SickTrainer(FakeTrainer):
    """Holds a weight that is not finite."""

    def healthy(self) -> bool:
        return False


def solo_step(trainer: FakeTrainer, *poisoned: int) -> tuple[WindowStep[bytes], WindowData[bytes]]:
    """The window of a world of one, whose `poisoned` samples have losses that are not finite."""
    share = share_of(ORDER, rank=0, world_size=1, micro_batch_size=2)
    trainer.initialise()
    data = WindowData(ScriptedSource(**(FIRST | {f"key-{i}-1": POISON_LOSS for i in poisoned})), trainer, Work())
    data.start(share, [])
    return WindowStep(share, data, trainer, SoloGroup(), Work(), "AllPositions", ranks_per_sample=1), data


def measure(trainer: FakeTrainer, *poisoned: int) -> tuple[tuple[wire.Verdict, ...], Measured]:
    step, data = solo_step(trainer, *poisoned)
    try:
        return step.measure()
    finally:
        data.close()


@pytest.mark.parametrize("poisoned", [(1,), (0, 2), (0, 1, 2, 3)])
def test_held_out_samples_without_a_finite_loss_get_verdicts_and_end_no_job(poisoned: tuple[int, ...]) -> None:
    """All four of them too: the same job without evaluation would train on."""
    verdicts, measured = measure(FakeTrainer(SoloGroup(), seed=0), *poisoned)
    reason = REASONS[Code.LOSS_NOT_FINITE]
    assert verdicts == tuple(wire.Verdict(sequence=i, step=1, reason=reason) for i in poisoned)
    assert [ref.sequence for ref in measured.live] == [i for i in range(4) if i not in poisoned]
    assert (measured.totals[0] if measured.live else 0.0) == 4.0 - len(poisoned)


def test_evaluation_of_weights_that_are_not_finite_ends_the_job() -> None:
    with pytest.raises(UserError, match="diverged"):
        measure(SickTrainer(SoloGroup(), seed=0), 1)


def test_training_window_in_which_no_loss_is_finite_ends_the_job() -> None:
    step, data = solo_step(FakeTrainer(SoloGroup(), seed=0), 0, 1, 2, 3)
    with pytest.raises(UserError, match="diverged at step 1"):
        step.run()
    data.close()
