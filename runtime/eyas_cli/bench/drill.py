"""A job that a benchmark runs and hurts: `eyas local run` as a child, watched through its metadata service."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from eyas_cli.runs import Run
from eyas_contract.errors import Transient, UserError
from eyas_contract.wire import StatusReply

POLL_SECONDS = 0.02
WAIT_SECONDS = 600.0
IDLE_SECONDS = 1.0


class Drill:
    """One run under observation."""

    def __init__(self, process: subprocess.Popen[bytes], workdir: Path) -> None:
        self._process = process
        self.workdir = workdir
        self._run: Run | None = None

    def status(self) -> StatusReply | None:
        """The service's words, or None while it is away."""
        try:
            self._run = self._run or Run(self.workdir)
            return self._run.live_status()
        except UserError:
            return None

    def wait_for_status(self) -> StatusReply:
        """The service's words, waited for. Raises `Transient` when it says nothing."""
        ends = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < ends and not self.ended:
            if (status := self.status()) is not None:
                return status
            time.sleep(POLL_SECONDS)
        raise Transient("the metadata service says nothing: the job has ended, or it is stuck")

    @property
    def ended(self) -> bool:
        """The job's process has ended."""
        return self._process.poll() is not None

    def wait_for_step(self, step: int) -> float:
        """Wait until `step` is acked; returns the monotonic time. Raises `Transient` when it never is."""
        ends = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < ends and not self.ended:
            status = self.status()
            if status is not None and status.acked_step >= step:
                return time.monotonic()
            time.sleep(POLL_SECONDS)
        raise Transient(f"step {step} was not reached: the job is too short for this benchmark, or it is stuck")

    def wait_for_next_step(self, killed: StatusReply, *, gang: bool) -> float:
        """Wait for the first step after a kill at which the job stood as in `killed`; returns the monotonic time.

        With `gang` the ranks themselves were killed: a step counts once another incarnation made it, replayed or not.
        Raises `Transient` when none is made.
        """
        ends = time.monotonic() + WAIT_SECONDS
        floor = None if gang else killed.acked_step
        while time.monotonic() < ends and not self.ended:
            status = self.status()
            if status is not None and floor is None and status.incarnation not in {"", killed.incarnation}:
                floor = status.acked_step
            if status is not None and floor is not None and status.acked_step > floor:
                return time.monotonic()
            time.sleep(POLL_SECONDS)
        raise Transient("no step was made after the kill: the job is too short for this benchmark, or it is stuck")

    def wait_for_warm_spares(self, role: str) -> None:
        """Wait until every process in waiting for `role` stopped using the processor. Raises `Transient`."""
        ends = time.monotonic() + WAIT_SECONDS
        seen: dict[int, int] = {}
        while time.monotonic() < ends and not self.ended:
            time.sleep(IDLE_SECONDS)
            run = self._run or Run(self.workdir)
            now = {process.pid: _ticks(process.pid) for process in run.processes() if process.role == f"{role}-spare"}
            if now and now == seen:
                return
            seen = now
        raise Transient(f"no process waits to replace a {role}: the job has ended, or spares are off")

    def stop(self) -> None:
        """End the job; its folder stays until the block ends."""
        self._process.kill()
        self._process.wait()

    def kill(self, role: str, *, index: int | None = None) -> float:
        """SIGKILL the processes of a role; returns the monotonic time."""
        run = self._run or Run(self.workdir)
        run.kill(role, index, signal.SIGKILL)
        return time.monotonic()


@contextlib.contextmanager
def drill(job: Path, volumes: dict[str, Path]) -> Iterator[Drill]:
    """Run `job` in a folder of its own; whatever is left of it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="eyas-drill-") as folder:
        workdir = Path(folder) / "run"
        pairs = [argument for name, path in volumes.items() for argument in ("--volume", f"{name}={path}")]
        with (Path(folder) / "out").open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 our own command
                [sys.executable, "-m", "eyas_cli", "local", "run", str(job), "--workdir", str(workdir), *pairs],
                stdout=output, stderr=output, env={**os.environ},
            )  # fmt: skip
        try:
            yield Drill(process, workdir)
        finally:
            process.kill()
            process.wait()


def _ticks(pid: int) -> int:
    """Processor time of a process in clock ticks; -1 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return -1
    return int(fields[11]) + int(fields[12])
