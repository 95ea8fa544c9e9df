"""Claims about the store's thread: one after the other, nothing said about a file that is gone."""

import os
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from eyas_contract.errors import Bug, Conflict, Transient
from eyas_runtime.metadata.service.worker import FileGone, Worker


class Recorder:
    """What a worker reported."""

    def __init__(self) -> None:
        self.afters = 0
        self.deaths: list[Exception] = []

    def after(self) -> None:
        self.afters += 1

    def died(self, error: Exception) -> None:
        self.deaths.append(error)


def started(database: Path | None = None) -> tuple[Worker, Recorder]:
    recorder = Recorder()
    worker = Worker(database=database, after=recorder.after, on_death=recorder.died)
    worker.start()
    return worker, recorder


def test_calls_run_one_after_the_other_in_one_thread() -> None:
    worker, recorder = started()
    seen: list[tuple[int, int]] = []
    futures = [
        worker.submit(lambda number=number: seen.append((number, threading.get_ident())))  # type: ignore[misc]
        for number in range(100)
    ]
    for future in futures:
        future.result(10.0)
    worker.stop()
    assert [number for number, _ in seen] == list(range(100))
    assert {thread for _, thread in seen}.isdisjoint({threading.get_ident()})
    assert len({thread for _, thread in seen}) == 1
    assert recorder.afters == 100


def test_our_own_errors_reach_the_caller_and_the_thread_goes_on() -> None:
    worker, recorder = started()

    def refuse() -> None:
        raise Conflict("no")

    with pytest.raises(Conflict, match="no"):
        worker.call(refuse)
    assert worker.call(lambda: 5) == 5
    worker.stop()
    assert recorder.deaths == []


@pytest.mark.parametrize(
    "error", [OSError("disk"), Bug("assertion"), ZeroDivisionError()], ids=lambda e: type(e).__name__
)
def test_any_other_error_ends_the_thread_and_nobody_waits_for_ever(error: Exception) -> None:
    worker, recorder = started()
    gate = threading.Event()

    def fail() -> None:
        gate.wait(10.0)
        raise error

    first = worker.submit(fail)
    behind = worker.submit(lambda: 1)
    gate.set()
    for future in (first, behind):
        with pytest.raises(Transient):
            future.result(10.0)
    with pytest.raises(Transient):
        worker.submit(lambda: 1)
    assert recorder.deaths == [error]


@pytest.mark.parametrize("how", ["unlinked", "replaced"])
def test_nothing_is_answered_once_the_database_file_is_gone(tmp_path: Path, how: str) -> None:
    database = tmp_path / "metadata.sqlite"
    database.write_bytes(b"rows")
    worker, recorder = started(database)
    worker.call(worker.watch_file)

    def commit_while_it_vanishes() -> str:
        if how == "unlinked":
            database.unlink()
        else:
            (tmp_path / "other").write_bytes(b"other")
            os.replace(tmp_path / "other", database)
        return "committed"

    with pytest.raises(Transient):
        worker.call(commit_while_it_vanishes)
    assert [type(error) for error in recorder.deaths] == [FileGone]


def test_a_caller_that_left_does_not_undo_what_was_begun() -> None:
    worker, _ = started()
    gate, done = threading.Event(), threading.Event()

    def slow() -> None:
        gate.wait(10.0)
        done.set()

    future: Future[None] = worker.submit(slow)
    skipped: list[int] = []
    later = worker.submit(lambda: skipped.append(1))
    later.cancel()
    gate.set()
    worker.stop()
    assert done.is_set()
    assert future.done()
    assert skipped == []
