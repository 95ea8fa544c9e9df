"""Calls end at our deadline, stuck ones are counted and bounded, and nothing they hold is reused before they end."""

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from eyas_contract.errors import Transient
from eyas_runtime.features.blobs.deadline import BoundedCalls, Progress
from support.mooncake_pool import wait_until


@pytest.fixture
def blocked() -> Iterator[threading.Event]:
    """Released at the end, so that no thread stays stuck."""
    event = threading.Event()
    yield event
    event.set()


def test_results_and_errors_pass_through() -> None:
    calls = BoundedCalls("store", seconds=10.0)
    assert calls.run(lambda _progress: 42, what="answer") == 42

    def fail(_progress: object) -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        calls.run(fail, what="failure")
    assert calls.run(lambda _progress: "still works", what="answer") == "still works"
    calls.close()


def test_pieces_arrive_in_order_in_the_callers_thread() -> None:
    calls = BoundedCalls("store", seconds=10.0)
    seen: list[tuple[int, int]] = []

    def work(progress: Progress) -> None:
        for number in range(5):
            progress(number)

    calls.run(
        work,
        lambda number: seen.append((number, threading.get_ident())),
        what="pieces",
    )
    assert seen == [(number, threading.get_ident()) for number in range(5)]
    calls.close()


def test_a_call_that_does_not_return_ends_at_the_deadline(blocked: threading.Event) -> None:
    calls = BoundedCalls("store", seconds=0.05)
    with pytest.raises(Transient, match=r"get of x did not return within 0\.05 s"):
        calls.run(lambda _progress: blocked.wait(), what="get of x")
    assert calls.stuck == 1
    assert calls.run(lambda _progress: 1, what="other", seconds=10.0) == 1
    blocked.set()
    wait_until(lambda: calls.stuck == 0)
    calls.close()


def test_too_many_stuck_calls_refuse_every_further_one_at_once(blocked: threading.Event) -> None:
    calls = BoundedCalls("store", seconds=0.05, stuck_max=2)
    for _ in range(2):
        with pytest.raises(Transient):
            calls.run(lambda _progress: blocked.wait(), what="get")
    ran: list[object] = []
    with pytest.raises(Transient, match="2 earlier calls never returned"):
        calls.run(ran.append, what="put", seconds=60.0)
    assert ran == []
    blocked.set()
    wait_until(lambda: calls.stuck == 0)
    calls.run(ran.append, what="put", seconds=10.0)
    assert len(ran) == 1
    calls.close()


def test_a_call_that_finds_all_workers_busy_waits_and_then_gives_up(blocked: threading.Event) -> None:
    calls = BoundedCalls("store", seconds=0.05, workers_max=1)
    with pytest.raises(Transient):
        calls.run(lambda _progress: blocked.wait(), what="get")
    with pytest.raises(Transient, match="busy"):
        calls.run(lambda _progress: 1, what="put")
    blocked.set()
    assert calls.run(lambda _progress: 1, what="put", seconds=10.0) == 1
    calls.close()


def test_an_abandoned_call_keeps_its_memory_until_it_ends_and_no_longer(blocked: threading.Event) -> None:
    class Memory:
        pass

    def stuck_with(memory: Memory) -> object:
        return lambda _progress: (blocked.wait(), memory)[0]

    calls = BoundedCalls("store", seconds=0.05)
    memory = Memory()
    alive = weakref.ref(memory)
    with pytest.raises(Transient):
        calls.run(stuck_with(memory), what="get")  # type: ignore[arg-type]
    del memory
    gc.collect()
    assert alive() is not None
    blocked.set()
    wait_until(lambda: alive() is None)
    calls.close()


def test_an_error_in_the_reader_of_pieces_does_not_leave_a_stuck_call() -> None:
    calls = BoundedCalls("store", seconds=10.0)

    def refuse(_piece: int) -> None:
        raise LookupError("reader")

    with pytest.raises(LookupError):
        calls.run(lambda progress: progress(1), refuse, what="get")
    wait_until(lambda: calls.stuck == 0)
    calls.close()


def test_threads_are_reused_and_end_when_closed() -> None:
    calls = BoundedCalls("only-here", seconds=10.0)
    for _ in range(20):
        calls.run(lambda _progress: None, what="nothing")

    def ours() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("only-here")]

    assert len(ours()) == 1
    calls.close()
    wait_until(lambda: not ours())
    with pytest.raises(Transient, match="closed"):
        calls.run(lambda _progress: None, what="nothing")


def test_a_stuck_thread_does_not_keep_the_interpreter_alive() -> None:
    code = (
        "import threading\n"
        "from eyas_contract.errors import Transient\n"
        "from eyas_runtime.features.blobs.deadline import BoundedCalls, Progress\n"
        "try:\n"
        "    BoundedCalls('store', seconds=0.05).run(lambda _: threading.Event().wait(), what='get')\n"
        "except Transient:\n"
        "    raise SystemExit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 7
