"""A real local run whose producers and ranks are small scripts: everything but torch is the product's own.

The run's interpreter is a shell script that hands every module to the real one, except the two entry points that
would load a model; those become `ROLE`, which can be told by files to exit, or to eat memory.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas_contract import env
from eyas_operator.backends.local import processes
from support.waiting import wait_until

ROLE = """
import os, pathlib, signal, sys, time
from eyas_runtime.process import die_with_parent, mark_ready
die_with_parent()
folder = pathlib.Path(os.environ["TEST_FOLDER"])
role = os.environ["EYAS_ROLE"]
if (folder / f"eat-{role}").exists():
    eaten = bytearray(os.urandom(1 << 20) * 400)
mark_ready()
while True:
    signal.pause()
"""
PYTHON = """#!/bin/sh
case "$2" in
  eyas_runtime.capture.produce|eyas_runtime.train.consume) exec {python} {role} ;;
  *) exec {python} "$@" ;;
esac
"""
RUNNER = """
import sys
from pathlib import Path
from eyas_contract.errors import EyasError
from eyas_operator.backends.local import local_run
try:
    code = local_run(Path(sys.argv[1]), Path(sys.argv[2]), volumes={{}}, python={python!r})
except EyasError as error:
    print(error, file=sys.stderr)
    code = int(error.exit_code)
sys.exit(code)
"""
JOB = """
apiVersion: eyas.dev/v1alpha1
kind: DisaggTrainingJob
metadata: {{name: {name}}}
spec:
  target: {{model: model}}
  data: {{prompts: [prompts.jsonl]}}
  store: {{backend: SharedDirectory, maxResidentBytes: 16Mi}}
  producers: {producers}
  consumers: {{replicas: 1, processesPerPod: 2}}
  recovery: {{backoff: {{baseSeconds: 1, maxSeconds: 1}}}}
"""


@dataclass(frozen=True, kw_only=True)
class LocalRun:
    """Folders of one run and the process that runs it."""

    folder: Path
    runner: "subprocess.Popen[bytes]"

    @property
    def dir(self) -> Path:
        return self.folder / "run"

    def processes(self) -> list[dict[str, Any]]:
        return list(read(self.dir / "processes.json") or [])

    def of(self, role: str, index: int = 0) -> dict[str, Any]:
        """The entry of a live process, waiting for it."""
        return wait_until(lambda: self.find(role, index), lambda: f"{role} {index}; {self.output()}")

    def find(self, role: str, index: int = 0) -> dict[str, Any] | None:
        return next((it for it in self.processes() if (it["role"], it["index"]) == (role, index)), None)

    def another(self, role: str, than: Mapping[str, Any], index: int = 0) -> dict[str, Any]:
        """The entry of a process of this role with another pid than before."""

        def found() -> dict[str, Any] | None:
            entry = self.find(role, index)
            return entry if entry is not None and entry["pid"] != than["pid"] else None

        return wait_until(found, lambda: f"another {role} {index} than {than['pid']}; {self.output()}")

    def status(self) -> dict[str, Any]:
        return dict(read(self.dir / "status.json") or {})

    def uid(self) -> str:
        return str((read(self.dir / "identity.json") or {}).get("uid", ""))

    def all_ready(self) -> None:
        """Wait until every role says so in the status."""

        def ready() -> bool:
            roles = self.status().get("roles", [])
            return bool(roles) and all(role["ready"] == role["desired"] > 0 for role in roles)

        wait_until(ready, lambda: f"readiness of all roles; {self.output()} {self.status()}")

    def output(self) -> str:
        return (self.folder / "runner.log").read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        self.runner.kill()
        self.runner.wait(timeout=60)


def read(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """JSON of a file that is replaced atomically; None before it exists."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def prepare(folder: Path, *, name: str = "job", producers: str = "{replicas: 1}") -> None:
    """Write the job and the interpreter of a run."""
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "prompts.jsonl").write_text('{"text": "a"}\n')
    (folder / "job.yaml").write_text(JOB.format(name=name, producers=producers))
    (folder / "role.py").write_text(ROLE)
    python = folder / "python"
    python.write_text(PYTHON.format(python=sys.executable, role=folder / "role.py"))
    python.chmod(0o755)
    (folder / "runner.py").write_text(RUNNER.format(python=str(python)))


@contextmanager
def local_run_of(folder: Path) -> Iterator[LocalRun]:
    """Start the prepared run in a process of its own; everything of it is gone afterwards."""
    with open(folder / "runner.log", "ab") as log:
        runner = subprocess.Popen(
            [sys.executable, str(folder / "runner.py"), str(folder / "job.yaml"), str(folder / "run")],
            stdout=log,
            stderr=log,
            # The fake trainer has no spares: they would be the product's own entry points.
            env=os.environ | {"TEST_FOLDER": str(folder), env.TRAINER: "fake"},
            start_new_session=True,
        )
    run = LocalRun(folder=folder, runner=runner)
    try:
        yield run
    finally:
        if runner.poll() is None:
            runner.kill()
        runner.wait(timeout=60)
        if run.uid():
            wait_until(lambda: not processes.marked(run.uid()), "the end of all pods of the run")


def interrupt(run: LocalRun) -> None:
    """Two SIGTERMs: stop, and do not wait for a drain."""
    run.runner.send_signal(signal.SIGTERM)
    wait_until(lambda: run.status().get("stage") == "Suspending", "the stop to be taken up")
    run.runner.send_signal(signal.SIGTERM)


def now() -> float:
    return time.time()
