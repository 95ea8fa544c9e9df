"""The operator as a real process against a private API server: started, watched over its log and probes, and killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import urllib3

from support.waiting import wait_until

_DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL", "--")


class OperatorProcess:
    """One process. Its log is `folder/NAME.log`."""

    def __init__(self, name: str, kubeconfig: Path, namespace: str, folder: Path, settings: Mapping[str, str]) -> None:
        """`settings` are `EYAS_OPERATOR_*` variables without the prefix."""
        keys = folder / "operator-key"
        keys.mkdir(exist_ok=True)
        (keys / "current").write_text("k" * 64)
        given = {
            "NAMESPACE": namespace,
            "POD_NAME": name,
            "KEY_DIRECTORY": str(keys),
            "LISTEN_ADDRESS": "127.0.0.1",
            "METRICS_LISTEN": "0",
            "PROBES_LISTEN": "0",
            **settings,
        }
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [*_DIE_WITH_PARENT, sys.executable, "-m", "eyas_operator"],
                env=_environment(folder)
                | {"KUBECONFIG": str(kubeconfig)}
                | {f"EYAS_OPERATOR_{key}": value for key, value in given.items()},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def lines(self) -> list[dict[str, Any]]:
        """What it logged so far."""
        found = []
        for text in self.log.read_text(errors="replace").splitlines():
            try:
                found.append(json.loads(text))
            except ValueError:
                found.append({"message": text})
        return found

    def said(self, message: str) -> dict[str, Any] | None:
        """The newest line with that message."""
        return next((line for line in reversed(self.lines()) if line["message"] == message), None)

    def wait_said(self, message: str) -> dict[str, Any]:
        """Wait until it logged that message."""
        return wait_until(lambda: self.said(message) or self._over(message), lambda: f"{message!r} in {self._tail()}")

    def started(self) -> "OperatorProcess":
        """Wait until it serves probes."""
        self.wait_said("started")
        return self

    def leading(self) -> "OperatorProcess":
        """Wait until it leads and has seen everything."""
        self.wait_said("this process leads")
        wait_until(lambda: self.get("probes", "/readyz")[0] == 200, lambda: f"{self.name} is ready: {self._tail()}")
        return self

    def get(self, which: str, path: str) -> tuple[int, str]:
        """Status and text of one of its endpoints (`metrics` or `probes`)."""
        line = self.wait_said("started")
        answer = urllib3.request("GET", f"http://127.0.0.1:{line[which]}{path}", timeout=10.0, retries=False)
        return answer.status, answer.data.decode()

    def metric(self, series: str) -> float:
        """Value of one series as it is written in the exposition; 0 when there is none."""
        for line in self.get("metrics", "/metrics")[1].splitlines():
            if line.startswith(f"{series} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; gives the exit code as Popen says it."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end."""
        return self.process.wait(60)

    def _over(self, message: str) -> None:
        assert self.process.poll() is None or self.said(message), (
            f"ended with {self.process.poll()} before {message!r}: {self._tail()}"
        )

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


@contextmanager
def operator_process(
    name: str, kubeconfig: Path, namespace: str, folder: Path, **settings: str
) -> Iterator[OperatorProcess]:
    """A process that is killed at the end if it still runs. `settings` are variables in lower case."""
    process = OperatorProcess(
        name, kubeconfig, namespace, folder, {key.upper(): value for key, value in settings.items()}
    )
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
        process.process.wait(30)


def _environment(folder: Path) -> dict[str, str]:
    kept = ("PATH", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"HOME": str(folder)}
