"""Failpoints kill, stop, exit or fail exactly where and when they are told to, and cost nothing otherwise."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eyas_contract.errors import Bug, UserError
from eyas_runtime import failpoints


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    failpoints.disarm()
    yield
    failpoints.disarm()


def in_child(work: Callable[[], None]) -> int:
    """Wait status of a forked child that does `work` and then exits with 0."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitpid(pid, os.WUNTRACED)[1]


def hit_three_times() -> None:
    for _ in range(3):
        failpoints.hit("capture.after_put")


def test_nothing_happens_in_production_not_even_for_an_unknown_name() -> None:
    failpoints.hit("capture.after_put")
    failpoints.hit("no.such.point")


def test_an_unknown_name_is_a_bug_once_anything_is_armed() -> None:
    failpoints.arm("capture.after_put=error@99")
    with pytest.raises(Bug, match=r"no\.such\.point"):
        failpoints.hit("no.such.point")


@pytest.mark.parametrize("hit", [1, 2, 3])
def test_kill_takes_the_process_at_exactly_that_hit(hit: int, tmp_path: Path) -> None:
    log = tmp_path / "hits"

    def work() -> None:
        failpoints.arm(f"capture.after_put=kill@{hit}", log_path=str(log))
        hit_three_times()

    status = in_child(work)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert log.read_text().count("capture.after_put") == hit


def test_a_hit_number_that_is_never_reached_changes_nothing() -> None:
    def work() -> None:
        failpoints.arm("capture.after_put=kill@4")
        hit_three_times()

    assert in_child(work) == 0


def test_exit_ends_with_its_code_without_cleaning_up(tmp_path: Path) -> None:
    def work() -> None:
        failpoints.arm("capture.after_put=exit:75")
        try:
            hit_three_times()
        finally:
            (tmp_path / "cleaned").touch()

    assert os.waitstatus_to_exitcode(in_child(work)) == 75
    assert not (tmp_path / "cleaned").exists()


def test_stop_pauses_until_somebody_continues_the_process() -> None:
    pid = os.fork()
    if pid == 0:
        failpoints.arm("capture.after_put=stop@2")
        hit_three_times()
        os._exit(7)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    os.kill(pid, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


@pytest.mark.parametrize(("action", "number"), [("error", errno.EIO), ("error:ENOSPC", errno.ENOSPC)])
def test_error_raises_once_and_the_next_hit_passes(action: str, number: int) -> None:
    failpoints.arm(f"files.before_rename={action}@2")
    failpoints.hit("files.before_rename")
    with pytest.raises(OSError, match=r"files\.before_rename") as caught:
        failpoints.hit("files.before_rename")
    assert caught.value.errno == number
    failpoints.hit("files.before_rename")


def test_the_star_counts_the_hits_of_all_names_together() -> None:
    failpoints.arm("*=error@3")
    failpoints.hit("capture.after_put")
    failpoints.hit("train.after_step")
    with pytest.raises(OSError, match=r"sweep\.after_list"):
        failpoints.hit("sweep.after_list")


def test_points_are_counted_apart_from_each_other() -> None:
    failpoints.arm("capture.after_put=error@2;train.after_step=error@1")
    failpoints.hit("capture.after_put")
    with pytest.raises(OSError, match=r"train\.after_step"):
        failpoints.hit("train.after_step")
    with pytest.raises(OSError, match=r"capture\.after_put"):
        failpoints.hit("capture.after_put")


def test_the_log_lists_every_hit_in_order(tmp_path: Path) -> None:
    log = tmp_path / "hits"
    failpoints.arm("", log_path=str(log))
    for name in ("capture.after_put", "train.after_step", "capture.after_put"):
        failpoints.hit(name)
    assert log.read_text().split() == ["capture.after_put", "train.after_step", "capture.after_put"]


@pytest.mark.parametrize(
    "spec",
    ["nope=kill", "capture.after_put", "capture.after_put=die", "capture.after_put=kill@0", "capture.after_put=exit:",
     "capture.after_put=error:NOTANERRNO", "capture.after_put=kill@x", "=kill"],
)  # fmt: skip
def test_a_spec_that_would_arm_nothing_is_refused(spec: str) -> None:
    with pytest.raises(UserError):
        failpoints.arm(spec)


@pytest.mark.parametrize("through_file", [False, True])
def test_the_environment_arms_a_process_from_its_first_instruction(tmp_path: Path, through_file: bool) -> None:
    spec = "train.after_step=kill@2 ; capture.after_put=exit:9"
    if through_file:
        (tmp_path / "spec").write_text(spec.replace(";", "\n"))
        spec = f"@{tmp_path / 'spec'}"
    code = (
        "from eyas_runtime.failpoints import hit\nhit('train.after_step')\nhit('train.after_step')\nraise SystemExit(3)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {failpoints.ENV_SPEC: spec}, check=False, timeout=60
    )
    assert child.returncode == -signal.SIGKILL


def test_every_name_says_what_the_world_looks_like_there() -> None:
    assert all(sentence and not sentence.endswith(".") for sentence in failpoints.NAMES.values())
