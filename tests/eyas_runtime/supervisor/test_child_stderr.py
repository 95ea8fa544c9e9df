"""What a dead child wrote is taken whole when it is reaped, whoever else reads it and whoever may still write to it."""

import os
import signal
import sys
from pathlib import Path

import pytest

from eyas_runtime.supervisor.child_stderr import ChildStderr
from eyas_runtime.supervisor.log_writer import LogWriter

PIPE_BYTES = 64 << 10


def launched(stderr: ChildStderr, script: str) -> int:
    return stderr.launch([sys.executable, "-c", f"import os, signal\n{script}"], os.environ)


def reaped(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def stderr(log: Path) -> ChildStderr:
    """Nobody reads the pipes but whoever asks for a child's end."""
    return ChildStderr(LogWriter(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)))


def test_last_text_does_not_wait_for_the_reader(stderr: ChildStderr) -> None:
    pid = launched(stderr, f"os.write(2, b'x' * {PIPE_BYTES - 5} + b'\\nlast')\nos.abort()")
    assert reaped(pid) == -signal.SIGABRT
    assert stderr.take(pid) == b"x" * (PIPE_BYTES - 5) + b"\nlast"


def test_open_pipe_of_a_grandchild_is_not_waited_for(stderr: ChildStderr, tmp_path: Path) -> None:
    mark = tmp_path / "grandchild"
    pid = launched(stderr, f"p = os.fork()\np or signal.pause()\nopen({str(mark)!r}, 'w').write(str(p))\nos.abort()")
    assert reaped(pid) == -signal.SIGABRT
    assert stderr.take(pid) == b""
    os.kill(int(mark.read_text()), signal.SIGKILL)


def test_closed_stderr_is_no_text(stderr: ChildStderr) -> None:
    pid = launched(stderr, "os.close(2)")
    assert reaped(pid) == 0
    assert stderr.take(pid) == b""


def test_program_that_cannot_be_started_leaves_nothing_open(stderr: ChildStderr) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        stderr.launch(["no-such-program-of-ours"], os.environ)
    assert os.listdir("/proc/self/fd") == before
