"""One local pod: a supervisor in a session of its own, from the manifest to the last process of it.

The supervisor dies with this runner (parent-death signal, set by itself) and its children with it, so a SIGKILL of
the runner leaves nothing. When the supervisor ends, whatever is left of its session is killed, as a container's
processes are. Started from the runner's main thread only: the signal follows the thread.
"""

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from eyas_contract import env
from eyas_operator.backends.local import processes
from eyas_operator.backends.local.environment import TERMINATION_FILE
from eyas_operator.backends.local.folder import open_append, read_json, replace_json
from eyas_operator.backends.local.objects import metadata_of
from eyas_operator.names import CONTAINER, PodIdentity, pod_identity
from eyas_operator.world import (
    ContainerState,
    ContainerStatus,
    Manifest,
    Pod,
    PodCondition,
    PodSpec,
    PodStatus,
    Running,
    Terminated,
    Waiting,
)

RECORD_FILE: Final = "pod.json"
NODE_NAME: Final = "local"
TERMINATION_BYTES_MAX: Final = 4096
LOG_TAIL_BYTES: Final = 2048
_PASSED_ON: Final = ("EYAS_FAILPOINTS", "EYAS_FAILPOINTS_LOG", env.TRAINER, env.CAPTURE)
"""The only variables of ours that a pod inherits from the runner's own environment."""


@dataclass(slots=True, kw_only=True)
class LocalPod:
    """One pod and what became of it."""

    manifest: Manifest
    uid: str
    created: str
    address: str
    folder: Path
    log: Path
    deleted: str = ""
    """Since when it is being deleted."""
    disrupted: str = ""
    """Why it ended although nothing was wrong with it."""
    waiting: Waiting = field(default_factory=lambda: Waiting(reason="ContainerCreating"))
    started: str = ""
    ended: Terminated | None = None
    out_of_memory: bool = False
    process: "subprocess.Popen[bytes] | None" = None
    pidfd: int = -1

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def identity(self) -> PodIdentity | None:
        """Which pod of the job."""
        return pod_identity(self.manifest["metadata"]["labels"])

    @property
    def running(self) -> bool:
        """Its supervisor was started and has not ended."""
        return self.process is not None and self.ended is None

    @property
    def ready(self) -> bool:
        """Its role says that it can make progress."""
        return self.running and (self.folder / env.READY_FILE).exists()

    @property
    def ports(self) -> list[int]:
        """Ports that it declares."""
        return [int(port["containerPort"]) for port in self._container.get("ports", ())]

    @property
    def grace_seconds(self) -> int:
        """Its own grace period."""
        return int(self.manifest["spec"].get("terminationGracePeriodSeconds", 30))

    @property
    def memory_limit(self) -> object:
        """Quantity of its memory limit, or None."""
        return self._container.get("resources", {}).get("limits", {}).get("memory")

    @property
    def _container(self) -> dict[str, Any]:
        container: dict[str, Any] = self.manifest["spec"]["containers"][0]
        return container

    def start(self, marker: str, rewritten: Mapping[str, str], *, now: str) -> None:
        """Start the supervisor. Raises `OSError` when the command cannot be executed."""
        with open_append(self.log) as log:
            self.process = subprocess.Popen(  # noqa: S603
                self._container["command"] + self._container.get("args", []),
                env=self._environment(marker, rewritten),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pidfd = os.pidfd_open(self.process.pid)
        self.started = now

    def _environment(self, marker: str, rewritten: Mapping[str, str]) -> dict[str, str]:
        values = {key: value for key, value in os.environ.items() if not key.startswith("EYAS_") or key in _PASSED_ON}
        for entry in self._container.get("env", ()):
            # The only reference that the builders make is the pod's own address.
            values[entry["name"]] = _rewrite(entry["value"], rewritten) if "value" in entry else self.address
        return values | {
            env.PARENT_PID: str(os.getpid()),
            env.GRACE_SECONDS: str(self.grace_seconds),
            processes.RUN_MARKER: marker,
            # The working folder holds the pod's files; none of them is a module.
            "PYTHONSAFEPATH": "1",
        }

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor alone."""
        if self.running:
            processes.send(self.pidfd, number)

    def kill(self) -> None:
        """SIGKILL everything of this pod, also what is stopped."""
        if self.process is not None and self.ended is None:
            processes.kill_session(self.process.pid)

    def finish(self, *, now: str) -> None:
        """The supervisor ended: reap it, kill what it left, keep how it ended."""
        if self.process is None:
            return
        code = self.process.wait()
        processes.kill_session(self.process.pid)
        os.close(self.pidfd)
        self.pidfd = -1
        self.ended = Terminated(
            exit_code=code if code >= 0 else 128 - code,
            signal=max(0, -code),
            reason=self._reason(code),
            message=self._message(code),
            finished_at=now,
        )
        (self.folder / env.READY_FILE).unlink(missing_ok=True)
        self.record()

    def fail(self, message: str, *, code: int, now: str) -> None:
        """It never ran and never will."""
        self.ended = Terminated(exit_code=code, reason="StartError", message=message, finished_at=now)
        self.record()

    def _reason(self, code: int) -> str:
        if self.out_of_memory:
            return "OOMKilled"
        return "Completed" if code == 0 else "Error"

    def _message(self, code: int) -> str:
        try:
            told = (self.folder / TERMINATION_FILE).read_bytes()[:TERMINATION_BYTES_MAX]
        except OSError:
            told = b""
        if told or code <= 0:
            # A supervisor that was killed had no last words, and the end of its log is about something else.
            return told.decode(errors="replace")
        return tail(self.log)

    def children(self) -> list[dict[str, Any]]:
        """What the supervisor says of its children, if it lives."""
        listed = read_json(self.folder / env.CHILDREN_FILE) if self.running else None
        return [child for child in listed if isinstance(child, dict)] if isinstance(listed, list) else []

    def record(self) -> None:
        """Remember it for a runner that comes after this one was killed."""
        ended = msgspec.to_builtins(self.ended) if self.ended else None
        value = {
            "uid": self.uid,
            "created": self.created,
            "started": self.started,
            "ended": ended,
            "disrupted": self.disrupted,
            "manifest": {"metadata": self.manifest["metadata"], "spec": {"containers": [{}]}},
        }
        replace_json(self.folder / RECORD_FILE, value, durable=False)

    def observe(self) -> Pod:
        """As a cluster would list it."""
        if self.ended is not None:
            state = ContainerState(terminated=self.ended)
            phase = "Succeeded" if self.ended.exit_code == 0 else "Failed"
        elif self.process is not None:
            state, phase = ContainerState(running=Running(started_at=self.started)), "Running"
        else:
            state, phase = ContainerState(waiting=self.waiting), "Pending"
        conditions = [PodCondition(type="Ready", status="True" if self.ready else "False")]
        if self.disrupted:
            conditions.append(
                PodCondition(type="DisruptionTarget", status="True", reason="RunnerEnded", message=self.disrupted)
            )
        container = ContainerStatus(name=CONTAINER, ready=self.ready, state=state)
        return Pod(
            metadata=metadata_of(self.manifest, uid=self.uid, created=self.created, deleted=self.deleted),
            spec=PodSpec(node_name=NODE_NAME),
            status=msgspec.convert(
                {"phase": phase, "conditions": conditions, "containerStatuses": (container,)}, PodStatus
            ),
        )


def restored(folder: Path, log: Path, address: str, *, now: str) -> LocalPod | None:
    """A pod of an earlier runner, from its record: it ended with that runner at the latest. None without a record."""
    record = read_json(folder / RECORD_FILE)
    if not isinstance(record, dict):
        return None
    pod = LocalPod(
        manifest=record["manifest"],
        uid=record["uid"],
        created=record["created"],
        address=address,
        folder=folder,
        log=log,
        started=record["started"],
        disrupted=record["disrupted"],
    )
    if record["ended"] is not None:
        pod.ended = msgspec.convert(record["ended"], Terminated)
        return pod
    pod.ended = Terminated(exit_code=137, signal=int(signal.SIGKILL), reason="Error", finished_at=now)
    pod.disrupted = "the runner of this machine ended, and its pods with it"
    return pod


def tail(path: Path) -> str:
    """The last lines of a log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            return file.read(LOG_TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _rewrite(value: str, rewritten: Mapping[str, str]) -> str:
    for prefix, replacement in rewritten.items():
        if value == prefix or value.startswith(f"{prefix}/"):
            return replacement + value[len(prefix) :]
    return value
