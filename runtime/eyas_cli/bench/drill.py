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
