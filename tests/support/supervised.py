"""A real supervisor around a small script: how tests of PID 1 start one, and make sure that it ends with them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from eyas_contract import env
from eyas_contract.config import RecoveryConfig
from support.waiting import wait_until


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """One running supervisor and the folders it was given."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    @property
    def pod(self) -> Path:
        return self.folder / "pod"

    def children(self) -> list[dict[str, object]]:
        try:
            return list(json.loads((self.pod / env.CHILDREN_FILE).read_bytes()))
        except FileNotFoundError:
            return []

    def child(self, *, restart: int = 0, count: int = 1) -> list[int]:
        """Pids of the life number `restart`, once all `count` of them are listed and running their script."""

        def started() -> list[int] | None:
            listed = [child for child in self.children() if child["restart"] == restart]
            marks = [self.folder / f"started.{child['process']}" for child in listed]
            whole = len(listed) == count and all(mark.exists() for mark in marks)
            return [int(str(child["pid"])) for child in listed] if whole else None

        return wait_until(started, f"life {restart} with {count} processes of {self.log()}")

    def end(self) -> int:
        return self.process.wait(timeout=60)

    def termination(self) -> dict[str, object]:
        return dict(json.loads((self.folder / "termination.json").read_bytes()))

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


PROLOGUE = """
import os, pathlib, signal, sys, time
from eyas_runtime.process import die_with_parent, run_role, mark_ready
die_with_parent()
folder = pathlib.Path(os.environ["TEST_FOLDER"])
restart = int(os.environ["EYAS_RESTART"])
slot = int(os.environ.get("LOCAL_RANK", "0"))
(folder / ("started." + os.environ["EYAS_PROCESS"])).touch()
"""


@contextmanager
def supervised(
    folder: Path,
    script: str,
    *,
    role: str = "producer",
    processes: int = 1,
    variables: dict[str, str] | None = None,
    command: list[str] | None = None,
    stderr: int = subprocess.STDOUT,
) -> Iterator[Supervised]:
    """A supervisor whose child runs `script` after `PROLOGUE`; killed at the end if it still runs."""
    (folder / "pod").mkdir(exist_ok=True)
    path = folder / "child.py"
    path.write_text(PROLOGUE + script)
    values = os.environ | {
        env.POD_DIRECTORY: str(folder / "pod"),
        env.TERMINATION_LOG: str(folder / "termination.json"),
        env.REPLICA_INDEX: "0",
        env.PARENT_PID: str(os.getpid()),
        "TEST_FOLDER": str(folder),
    }
    arguments = ["--role", role, "--processes", str(processes), "--", *(command or [sys.executable, str(path)])]
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "eyas_runtime.supervisor", *arguments],
            env=values | (variables or {}),
            stdout=log,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        yield Supervised(process=process, folder=folder)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=60)


def recovery(folder: Path, **values: float) -> dict[str, str]:
    """Variables that name a job configuration with these recovery settings."""
    settings = msgspec.structs.replace(RecoveryConfig(), **values)
    raw = {
        "name": "test", "job_uid": "abcdef0123456789", "store_epoch": 1, "target": {"model": "/m"}, "data": {},
        "draft": {}, "training": {"checkpoint": {"path": "/c"}},
        "store": {"backend": "Memory", "max_resident_bytes": 1},
        "recovery": msgspec.to_builtins(settings),
        "endpoints": {"metadata_url": "http://127.0.0.1:9", "rendezvous_host": "127.0.0.1", "rendezvous_port": 1},
        "producers": 1, "world_size": 1,
    }  # fmt: skip
    path = folder / "job.json"
    path.write_text(json.dumps(raw))
    return {env.CONFIG_FILE: str(path)}
