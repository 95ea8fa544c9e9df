"""Fetching: ahead of time, judged by content, asked for again where lost, and never longer than a turn."""

import threading

import pytest

from eyas_contract import wire
from eyas_contract.errors import Closed, Corrupt, NotReadable, Transient
from eyas_contract.refs import SampleRef
from eyas_runtime.train.data import WindowData
from eyas_runtime.train.fake import POISON, FakeTrainer
from eyas_runtime.train.generations import NOT_MINE
from eyas_runtime.train.group import SoloGroup
from eyas_runtime.train.heartbeat import Work
from eyas_runtime.train.ports import Code
from eyas_runtime.train.window import Share, share_of
from support.scripted_source import Answer, ScriptedSource, ref


def window(*refs: SampleRef | None) -> Share:
    entries = tuple(wire.WindowEntry(sequence=i, ref=entry) for i, entry in enumerate(refs))
    order = wire.Order(ordinal=0, kind="train", step=1, entries=entries)
    return share_of(order, rank=0, world_size=1, micro_batch_size=1)


def data_over(source: ScriptedSource) -> WindowData[bytes]:
    return WindowData(source, FakeTrainer(SoloGroup(), seed=0), Work())


def keys(*names: str, value: bytes | Exception = b"x") -> dict[str, bytes | Exception]:
    return dict.fromkeys(names, value)


def test_a_window_is_there_when_every_live_place_is() -> None:
    data = data_over(ScriptedSource(**keys("key-0-1", "key-2-1")))
    data.start(window(ref(0), None, ref(2)), [])
    assert data.turn(5.0)
    assert (data.codes(3), data.sample(0), data.sample(2)) == (bytes(3), b"x", b"x")
    data.close()


def test_what_was_fetched_ahead_is_not_fetched_again() -> None:
    source = ScriptedSource(**keys("key-0-1", "key-1-1"))
    data = data_over(source)
    data.start(window(ref(0)), [ref(1)])
    assert data.turn(5.0)
    data.start(window(ref(1)), [])
    assert data.turn(5.0)
    assert sorted(source.got) == ["key-0-1", "key-1-1"]
    data.close()


def test_poison_is_a_code_and_not_a_loss() -> None:
    source = ScriptedSource(**{"key-0-1": b"good", "key-1-1": POISON})
    data = data_over(source)
    data.start(window(ref(0), ref(1)), [])
    assert data.turn(5.0)
    assert data.codes(2) == bytes([Code.FINE, Code.NOT_FINITE])
    assert source.reported == []
    data.close()


@pytest.mark.parametrize("error", [NotReadable("gone"), Corrupt("torn")], ids=["gone", "torn"])
def test_a_lost_sample_is_reported_with_its_generation_and_its_new_capture_is_used(error: Exception) -> None:
    answers: dict[str, Answer] = {"key-0-1": b"x", "key-1-3": error, "key-1-4": b"new"}
    source = ScriptedSource(**answers)
    data = data_over(source)
    data.start(window(ref(0), ref(1, 3)), [])
    assert not data.turn(0.3)
    assert data.codes(2) == bytes([Code.FINE, Code.MISSING])
    assert [(lost.sequence, lost.generation) for lost in source.reported] == [(1, 3)]
    source.recaptured[1] = ref(1, 4)
    assert data.turn(5.0)
    assert (data.codes(2), data.sample(1)) == (bytes(2), b"new")
    assert len(source.reported) == 1
    data.close()


def test_a_service_that_is_away_is_asked_again_in_the_next_turn() -> None:
    answers: dict[str, Answer] = {"key-0-1": NotReadable("gone"), "key-0-2": b"new"}
    source = ScriptedSource(**answers)
    source.failing = [Transient("away", retry_after_seconds=0.0)] * 2
    source.recaptured[0] = ref(0, 2)
    data = data_over(source)
    data.start(window(ref(0)), [])
    assert data.turn(10.0)
    assert [lost.sequence for lost in source.reported] == [0]
    data.close()


def test_a_window_that_changed_ends_the_life() -> None:
    source = ScriptedSource(**{"key-0-1": NotReadable("gone")})
    source.failing = [Closed("a newer version")]
    data = data_over(source)
    data.start(window(ref(0)), [])
    with pytest.raises(Closed):
        data.turn(5.0)
    data.close()


def test_a_store_that_is_away_is_asked_until_it_answers() -> None:
    source = ScriptedSource(**{"key-0-1": Transient("away", retry_after_seconds=0.0)})
    data = data_over(source)
    data.start(window(ref(0)), [])
    assert not data.turn(0.2)
    source.answers["key-0-1"] = b"back"
    assert data.turn(5.0)
    assert source.reported == [], "an answer that is late is no loss"
    data.close()


def test_work_that_waits_for_a_new_capture_is_idle() -> None:
    source = ScriptedSource(**{"key-0-1": NotReadable("gone")})
    work = Work()
    data = WindowData(source, FakeTrainer(SoloGroup(), seed=0), work)
    data.start(window(ref(0)), [])
    assert not data.turn(0.2)
    assert work.phase == "idle"
    data.close()


def test_a_turn_that_is_over_leaves_a_slow_read_under_way() -> None:
    gate = threading.Event()

    class SlowSource(ScriptedSource):
        def get(self, ref: SampleRef) -> bytes:
            gate.wait(30)
            return super().get(ref)

    source = SlowSource(**keys("key-0-1"))
    data = data_over(source)
    data.start(window(ref(0)), [])
    assert not data.turn(0.05)
    gate.set()
    assert data.turn(5.0)
    assert source.got == ["key-0-1"]
    data.close()


def test_a_capture_older_than_another_ranks_is_asked_for_again_and_not_reported() -> None:
    answers: dict[str, Answer] = {"key-0-1": b"x", "key-1-1": b"old", "key-1-2": b"new"}
    source = ScriptedSource(**answers)
    source.recaptured[1] = ref(1, 2)
    data = data_over(source)
    data.start(window(ref(0), ref(1)), [])
    assert data.turn(5.0)
    assert data.generations(3) == [1, 1, NOT_MINE]
    data.drop_older([1, 2, 7])
    assert data.codes(2) == bytes([Code.FINE, Code.MISSING])
    assert data.turn(5.0)
    assert (data.generations(2), data.sample(0), data.sample(1)) == ([1, 2], b"x", b"new")
    assert (source.asked, source.reported) == ([(1,)], [])
    data.close()


def test_an_old_capture_that_is_still_being_read_is_not_waited_for() -> None:
    gate = threading.Event()

    class StuckSource(ScriptedSource):
        def get(self, ref: SampleRef) -> bytes:
            if ref.generation == 1:
                gate.wait(30)
            return super().get(ref)

    source = StuckSource(**keys("key-0-1", value=b"old"), **keys("key-0-2", value=b"new"))
    source.recaptured[0] = ref(0, 2)
    data = data_over(source)
    data.start(window(ref(0)), [])
    assert not data.turn(0.05)
    data.drop_older([2])
    assert data.turn(5.0)
    assert data.sample(0) == b"new"
    gate.set()
    data.close()
