"""One local run as the command line sees it: the files of its folder and, while it lives, its metadata service.

Reads only; the runner is the only writer. A run is live when its service answers.
"""

import json
import os
import signal
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from eyas_contract import wire
from eyas_contract.client import MetadataClient
from eyas_contract.decoding import NOT_JSON, UNDECODABLE
from eyas_contract.env import METADATA_PORT, TOKEN_READER
from eyas_contract.errors import Corrupt, Transient, UserError
from eyas_operator.api.status import JobStatus, first_reason, load_status

CALL_SECONDS = 3.0
METRICS_FILE = "metrics.jsonl"
RESULT_KEYS = frozenset({"state", "steps", "weightsSha256"})
"""What is read of a result here; a file without them is not one."""


_ADVICE = {"result.json": "; eyas local run with the same folder writes it again"}


class LocalProcess(msgspec.Struct, frozen=True):
    """One entry of processes.json."""

    role: str
    index: int
    attempt: int
    incarnation: str
    pid: int
    address: str


class Run:
    """A run's folder. Raises `UserError` when there is none."""

    def __init__(self, workdir: Path) -> None:
        if not (workdir / "job.yaml").exists():
            raise UserError(f"{workdir} holds no run: start one with eyas local run JOB.yaml --workdir {workdir}")
        self.workdir = workdir

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self._json("identity.json").get("name") or self.workdir.resolve().name)

    def processes(self) -> tuple[LocalProcess, ...]:
        """Live processes; empty when nothing runs. Raises `Corrupt`."""
        path = self.workdir / "processes.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=tuple[LocalProcess, ...])
        except FileNotFoundError:
            return ()
        except UNDECODABLE as error:
            raise Corrupt(
                f"{path} is damaged ({error}): delete it; eyas local run with the same folder writes it again"
            ) from error

    def resource_status(self) -> dict[str, Any]:
        """The job's status as in the custom resource. Raises `Corrupt`."""
        return self._json("status.json")

    def typed_status(self) -> JobStatus:
        """`resource_status` as the operator reads it. Raises `Corrupt`."""
        try:
            return load_status(self.resource_status())
        except ValidationError as error:
            raise Corrupt(f"{self.workdir / 'status.json'} is damaged: {first_reason(error)}") from error

    def result(self) -> dict[str, Any]:
        """result.json, empty while the run goes on. Raises `Corrupt`."""
        found = self._json("result.json")
        if found and not found.keys() >= RESULT_KEYS:
            raise Corrupt(f"{self.workdir / 'result.json'} is damaged: it is no result{_ADVICE['result.json']}")
        return found

    def _json(self, name: str) -> dict[str, Any]:
        path = self.workdir / name
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except NOT_JSON as error:
            raise Corrupt(f"{path} is damaged: {error}{_ADVICE.get(name, '')}") from error
        if not isinstance(content, dict):
            raise Corrupt(f"{path} is damaged: it holds no JSON object{_ADVICE.get(name, '')}")
        return content

    @cached_property
    def client(self) -> MetadataClient:
        """Client of the run's metadata service with the reader's token. Raises `UserError` when none is running."""
        addresses = [entry.address for entry in self.processes() if entry.role == "metadata"]
        tokens = sorted(self.workdir.glob(f"secrets/*/{TOKEN_READER}"))
        if not addresses or not tokens:
            raise UserError(f"no metadata service is running in {self.workdir}")
        return MetadataClient(f"http://{addresses[0]}:{METADATA_PORT}", str(tokens[0]), deadline_seconds=CALL_SECONDS)

    def live_status(self) -> wire.StatusReply | None:
        """What the service says, or None when none answers."""
        try:
            return self.client.call(wire.STATUS, wire.Empty())
        except (Transient, UserError):
            self.__dict__.pop("client", None)
            return None

    def metrics(self) -> tuple[wire.StepMetrics, ...]:
        """Metrics of every trained step, in step order; a step that was replayed appears once, as last trained."""
        newest: dict[int, wire.StepMetrics] = {}
        try:
            lines = (self.workdir / METRICS_FILE).read_bytes().splitlines()
        except FileNotFoundError:
            lines = []
        for line in lines:
            try:
                entry = msgspec.json.decode(line, type=wire.StepMetrics)
            except UNDECODABLE:
                continue  # The last line of a runner that was killed while it wrote.
            newest[entry.step] = entry
        return tuple(newest[step] for step in sorted(newest))

    def record_metrics(self, after_step: int) -> int:
        """Append what the service has of steps > `after_step`; returns the newest step recorded."""
        try:
            reply = self.client.call(wire.METRICS, wire.MetricsRequest(after_step=after_step))
        except (Transient, UserError, Corrupt):
            self.__dict__.pop("client", None)
            return after_step
        self._append(reply.steps)
        return max((entry.step for entry in reply.steps), default=after_step)

    def ledgers(self) -> Sequence[Path]:
        """Files of the run's metadata stores, the newest last."""
        found = self.workdir.glob("claims/*metadata*/metadata.sqlite")
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def record_rest(self) -> None:
        """Append what the ledger of a run that ended has beyond the newest recorded step. Raises `EyasError`."""
        if not self.result() or not self.ledgers():
            return
        from eyas_runtime.metadata.offline import read_metrics

        self._append(read_metrics(self.ledgers()[-1], max((entry.step for entry in self.metrics()), default=0)))

    def _append(self, steps: Sequence[wire.StepMetrics]) -> None:
        if steps:
            with (self.workdir / METRICS_FILE).open("ab") as file:
                file.writelines(msgspec.json.encode(entry) + b"\n" for entry in steps)

    def kill(self, role: str, index: int | None, number: signal.Signals) -> Sequence[LocalProcess]:
        """Send `number` to the processes of a role (`all`: every one). Raises `UserError` when there is none."""
        targets = [entry for entry in self.processes() if role in ("all", entry.role) and index in (None, entry.index)]
        if not targets:
            known = ", ".join(sorted({entry.role for entry in self.processes()})) or "nothing"
            raise UserError(f"no live process has role {role!r} here; running: {known}")
        return [entry for entry in targets if _sent(entry.pid, number)]


def _sent(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False for a process that ended since it was listed."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
