"""A whole job on this machine for the kill tests: tiny target, real processes, real store, started by the real command.

`LocalJob` starts `eyas local run` as a child, waits for what it can observe (status, processes, result), kills what it
is told to. Waiting is bounded polling of facts; it never stands in for synchronisation.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml

from eyas_cli.runs import LocalProcess, Run
from eyas_contract.wire import StatusReply

WAIT_SECONDS = 900.0
T = TypeVar("T")


def tiny_job(folder: Path, **changes: object) -> Path:
    """Write a job file for the tiny target in `folder` (models/tiny, data/prompts.jsonl); `changes` are spec overrides
    with dotted paths, for example `{"training.windowSize": 4}`. Returns its path."""
    spec: dict[str, Any] = {
        "target": {"model": "/models/tiny", "dtype": "float32"},
        "data": {"prompts": ["/data/prompts.jsonl"], "maxLength": 64, "epochs": 1, "seed": 7, "groupSize": 2},
        "draft": {"vocabSize": 64, "steps": 3},
        "training": {"windowSize": 4, "learningRate": 1e-3, "checkpoint": {"everySteps": 4, "keep": 2}},
        # About eight windows: what is in the pool never carries a job to its end without producers.
        "store": {"backend": "SharedDirectory", "maxResidentBytes": "1Mi"},
        "volumes": {"models": {"claimName": "models"}, "data": {"claimName": "data"}},
        "producers": {"replicas": 2},
        "consumers": {"replicas": 1, "processesPerPod": 2},
        "recovery": {"maxRestartsWithoutProgress": 20, "restartsInPlace": 5, "leaseSeconds": 5, "hangSeconds": 10},
    }
    for path, value in changes.items():
        place = spec
        *parents, last = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    body = {
        "apiVersion": "eyas.dev/v1alpha1", "kind": "DisaggTrainingJob", "metadata": {"name": "tiny"}, "spec": spec,
    }  # fmt: skip
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


class LocalJob:
    """One `eyas local run`, restarted as often as a test likes, always on the same folder."""

    def __init__(self, job: Path, workdir: Path, volumes: dict[str, Path], environment: dict[str, str]) -> None:
        self.job = job
        self.workdir = workdir
        self._volumes = volumes
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self.process: subprocess.Popen[bytes] | None = None
        self.output = workdir.parent / f"{workdir.name}.out"

    def start(self) -> "LocalJob":
        volumes = [argument for name, path in self._volumes.items() for argument in ("--volume", f"{name}={path}")]
        command = [sys.executable, "-m", "eyas_cli", "local", "run", str(self.job), "--workdir", str(self.workdir)]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, *volumes], env=self._environment, stdout=output, stderr=output, start_new_session=True
            )
        return self

    @property
    def run(self) -> Run:
        return Run(self.workdir)

    def wait_until(self, claim: str, probe: Callable[[], T | None], seconds: float = WAIT_SECONDS) -> T:
        """The first true value of `probe`; fails with `claim` and the tail of the output."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            value = probe()
            if value:
                return value
            if self.process is not None and self.process.poll() is not None and not probe():
                break
            time.sleep(0.05)
        tail = self.output.read_text(errors="replace")[-3000:]
        raise AssertionError(f"never saw: {claim}\n{tail}")

    def status(self) -> StatusReply | None:
        with contextlib.suppress(Exception):
            return self.run.live_status()
        return None

    def wait_for_step(self, step: int) -> StatusReply:
        def probe() -> StatusReply | None:
            status = self.status()
            return status if status is not None and status.acked_step >= step else None

        return self.wait_until(f"step {step}", probe)

    def processes(self, role: str) -> list[LocalProcess]:
        with contextlib.suppress(Exception):
            return [entry for entry in self.run.processes() if entry.role == role]
        return []

    def kill(self, role: str, *, number: signal.Signals = signal.SIGKILL, index: int | None = None) -> list[int]:
        """Signal the processes of a role; returns their ids."""
        found = self.wait_until(f"a live {role}", lambda: self.processes(role))
        pids = [entry.pid for entry in found if index is None or entry.index == index]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def kill_tree(self) -> None:
        """SIGKILL of the runner; everything below dies with it."""
        assert self.process is not None
        pids = [entry.pid for entry in self.run.processes()]
        self.process.kill()
        self.process.wait()
        self.process = None
        self.wait_until("every process of the run gone", lambda: not any(_alive(pid) for pid in pids))

    def finish(self) -> dict[str, Any]:
        """Wait for the end; the result. Fails unless the exit code is 0."""
        assert self.process is not None
        try:
            code = self.process.wait(timeout=WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not finished:\n{self.output.read_text(errors='replace')[-3000:]}") from None
        assert code == 0, f"exit code {code}:\n{self.output.read_text(errors='replace')[-3000:]}"
        self.process = None
        result: dict[str, Any] = json.loads((self.workdir / "result.json").read_text())
        return result

    def refused(self) -> tuple[int, str]:
        """Start, wait for the end; the exit code and what this life printed."""
        before = self.output.stat().st_size if self.output.exists() else 0
        self.start()
        assert self.process is not None
        try:
            code = self.process.wait(timeout=WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended:\n{self.output.read_text(errors='replace')[-3000:]}") from None
        self.process = None
        return code, self.output.read_bytes()[before:].decode(errors="replace").strip()

    def wait_stopped(self, role: str, count: int) -> list[int]:
        """Wait until `count` processes of a role are stopped (SIGSTOP, or a failpoint's `stop`); their ids."""

        def stopped() -> list[int] | None:
            pids = [entry.pid for entry in self.processes(role) if _state(entry.pid) == "T"]
            return pids if len(pids) == count else None

        return self.wait_until(f"{count} stopped processes of {role}", stopped)

    def audit(self) -> dict[str, int]:
        command = [sys.executable, "-m", "eyas_cli", "audit", str(self.workdir), "--json"]
        done = subprocess.run(command, capture_output=True, check=True, env=self._environment)
        answer: dict[str, int] = json.loads(done.stdout)
        return answer

    def stop(self) -> None:
        """End whatever is left; for clean-up."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _state(pid: int) -> str:
    """One letter, as in /proc/PID/stat; `Z` for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def _alive(pid: int) -> bool:
    return _state(pid) != "Z"


@contextlib.contextmanager
def local_job(
    folder: Path, volumes: dict[str, Path], environment: dict[str, str] | None = None, **changes: object
) -> Iterator[LocalJob]:
    """A job in `folder`, started; ended at the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    job = LocalJob(tiny_job(folder, **changes), folder / "run", volumes, environment or {})
    try:
        yield job.start()
    finally:
        job.stop()
