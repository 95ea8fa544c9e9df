"""The operator under measurement: a process of its own, watched from outside by its metrics and by the kernel."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import urllib3

from eyas_cli.bench.operator.control_plane import NAMESPACE, ControlPlane, wait_for
from eyas_cli.bench.operator.programs import END_SECONDS, running
from eyas_contract.errors import Transient

STARTED_SECONDS: Final = 120.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Counters of one moment."""

    requests: float
    """To the API server, by the operator's own metric."""
    passes: float
    cpu_seconds: float
    errors: float
    """Passes that stopped early."""


class Subject:
    """One operator process."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log
        self._ports: dict[str, int] = {}

    def check_alive(self) -> None:
        """Raise `Transient` when it has ended: a cluster would start it again, but what is measured is one life."""
        if self._process.poll() is not None:
            tail = self._log.read_text(errors="replace").splitlines()[-1:]
            raise Transient(f"the operator ended with {self._process.returncode}: {tail}")

    def started(self) -> bool:
        """It serves probes and metrics. Raises `Transient` when it has ended."""
        self.check_alive()
        for line in self._log.read_text(errors="replace").splitlines():
            if '"started"' in line:
                said = json.loads(line)
                self._ports = {"metrics": said["metrics"], "probes": said["probes"]}
                return True
        return False

    def ready(self) -> bool:
        """It leads and has listed everything."""
        self.check_alive()
        try:
            return self._ports != {} and self._get("probes", "/readyz")[0] == 200
        except urllib3.exceptions.HTTPError:
            return False

    def read(self) -> Reading:
        """Its counters now."""
        sums: dict[str, float] = {}
        for line in self._get("metrics", "/metrics")[1].splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                name = series.partition("{")[0]
                sums[name] = sums.get(name, 0.0) + float(value)
        return Reading(
            requests=sums.get("eyas_operator_api_requests_total", 0.0),
            passes=sums.get("eyas_operator_reconcile_total", 0.0),
            errors=sums.get("eyas_operator_reconcile_errors_total", 0.0),
            cpu_seconds=self.cpu_seconds(),
        )

    def cpu_seconds(self) -> float:
        """Processor time of the process, all threads."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def peak_bytes(self) -> int:
        """The most memory that it ever had resident."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    def stop(self) -> None:
        """As Kubernetes stops it: SIGTERM, and its Lease is given back."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(END_SECONDS)

    def _get(self, which: str, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self._ports[which]}{path}"
        answer = urllib3.request("GET", url, timeout=30.0, retries=False)
        return answer.status, answer.data.decode()


@contextmanager
def subject(plane: ControlPlane, name: str, module: str, **settings: str) -> Iterator[Subject]:
    """`python -m module` as the operator pod `name`, serving probes. Raises `Transient` when it does not start.

    `settings` are `EYAS_OPERATOR_*` variables without the prefix.
    """
    keys = plane.folder / "operator-key"
    keys.mkdir(exist_ok=True)
    (keys / "current").write_text("k" * 64)
    given = {
        "NAMESPACE": NAMESPACE, "POD_NAME": name, "KEY_DIRECTORY": str(keys), "LISTEN_ADDRESS": "127.0.0.1",
        "METRICS_LISTEN": "0", "PROBES_LISTEN": "0", **settings,
    }  # fmt: skip
    environment = {f"EYAS_OPERATOR_{key}": value for key, value in given.items()}
    environment["KUBECONFIG"] = str(plane.kubeconfig())
    log = plane.folder / f"{name}.log"
    with running([sys.executable, "-m", module], log, environment) as process:
        found = Subject(process, log)
        wait_for(found.started, "the operator serves its probes", STARTED_SECONDS, pause_seconds=0.02)
        yield found
