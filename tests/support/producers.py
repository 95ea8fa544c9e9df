"""A real producer process against a real metadata service, and what it left behind, as the service tells it."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from eyas_contract import env, wire
from eyas_contract.config import JobConfig
from eyas_contract.refs import SampleRef
from support.metadata_service import ServiceThread, client_of
from support.waiting import wait_until


class ProducerProcess:
    """`python -m eyas_runtime.capture.produce` as a pod would start it."""

    def __init__(
        self, folder: Path, config: JobConfig, *, index: int = 0, ordinal: int = 1, restart: int = 0, **environment: str
    ) -> None:
        self.pod = folder / f"producer-{index}-{ordinal}-{restart}"
        self.pod.mkdir(exist_ok=True)
        self.log = self.pod / "log"
        (self.pod / "job.json").write_bytes(msgspec.json.encode(config))
        variables = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            env.CONFIG_FILE: str(self.pod / "job.json"),
            env.TOKEN_DIRECTORY: str(folder / "secrets"),
            env.POD_DIRECTORY: str(self.pod),
            env.TERMINATION_LOG: str(self.pod / "termination"),
            env.HOST_ADDRESS: "127.0.0.1",
            env.ROLE: "producer",
            env.REPLICA_INDEX: str(index),
            env.ORDINAL: str(ordinal),
            env.RESTART: str(restart),
            **environment,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "eyas_runtime.capture.produce"], env=variables, stdout=log, stderr=log
            )

    def wait_code(self) -> int:
        """Its exit code, once it has ended by itself."""
        return self.process.wait(120.0)

    def stop(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30.0)


def status_of(folder: Path, service: ServiceThread) -> wire.StatusReply:
    """What the service says."""
    client = client_of(folder, service.port, "reader")
    try:
        return client.status()
    finally:
        client.close()


def wait_ready(folder: Path, service: ServiceThread, count: int, producer: ProducerProcess | None = None) -> None:
    """Wait until `count` samples are ready; fails when `producer` ends before."""

    def probe() -> bool:
        if status_of(folder, service).samples_ready >= count:
            return True
        if producer is not None and producer.process.poll() is not None:
            raise AssertionError(f"the producer ended with {producer.process.returncode}:\n{producer.log.read_text()}")
        return False

    wait_until(probe, f"{count} committed samples", seconds=120.0)


def first_window(folder: Path, service: ServiceThread) -> dict[int, SampleRef]:
    """The refs of the first window, as rank 0 of a first attempt gets them; once for each service."""
    client = client_of(folder, service.port, "consumer")
    try:
        reply = client.reconcile(
            wire.ReconcileRequest(
                attempt=1,
                world_size=1,
                process="a" * 32,
                fingerprint=wire.Fingerprint(facts={}, digest="f"),
                checkpoint=None,
            )
        )
        order = client.order(wire.OrderRequest(incarnation=reply.incarnation, ordinal=0, wait_seconds=5)).order
    finally:
        client.close()
    assert order is not None
    return {entry.sequence: entry.ref for entry in order.entries if entry.ref is not None}
