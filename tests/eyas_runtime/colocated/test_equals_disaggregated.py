"""The colocated run and the disaggregated one end with equal weights and equal losses, bit for bit."""

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyas_contract import env, wire
from eyas_contract.config import JobConfig, StoreConfig
from support.metadata_service import client_of, free_port, running_service
from support.producers import ProducerProcess, status_of
from support.tiny_target import tiny_job, write_tiny_prompts

pytestmark = pytest.mark.slow
PROMPTS = 16


def job_in(folder: Path, target: Path, *, colocated: bool, world_size: int) -> JobConfig:
    store = StoreConfig(backend="Memory", max_resident_bytes=1 << 26) if colocated else None
    changes: dict[str, Any] = {} if store is None else {"store": store}
    job = tiny_job(
        folder,
        target=target,
        prompts=(write_tiny_prompts(folder / "p.jsonl", PROMPTS),),
        colocated=colocated,
        world_size=world_size,
        training={"learning_rate": 1e-2},
        **changes,
    )
    endpoints = msgspec.structs.replace(job.endpoints, rendezvous_port=free_port())
    return msgspec.structs.replace(job, endpoints=endpoints)


def rank(folder: Path, config: JobConfig, number: int, *, colocated: bool) -> "subprocess.Popen[bytes]":
    pod = folder / f"rank-{number}"
    pod.mkdir()
    (pod / "job.json").write_bytes(msgspec.json.encode(config))
    variables = {
        **os.environ, "OMP_NUM_THREADS": "1", env.CONFIG_FILE: str(pod / "job.json"),
        env.TOKEN_DIRECTORY: str(folder / "secrets"), env.POD_DIRECTORY: str(pod), env.HOST_ADDRESS: "127.0.0.1",
        env.ROLE: "consumer", env.RANK: str(number), env.LOCAL_RANK: str(number),
        env.WORLD_SIZE: str(config.world_size), env.ATTEMPT: "1", env.PROCESS: secrets.token_hex(16),
    }  # fmt: skip
    module = "eyas_runtime.colocated" if colocated else "eyas_runtime.train.consume"
    with (pod / "log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", module], env=variables, stdout=log, stderr=log)


def outcome(folder: Path, target: Path, *, colocated: bool, world_size: int) -> tuple[str, list[float]]:
    """(digest of the weights, losses) of one whole run."""
    folder.mkdir()
    with running_service(folder, job_in(folder, target, colocated=colocated, world_size=world_size)) as service:
        config = service.settings.config
        producer = None if colocated else ProducerProcess(folder, config)
        ranks = [rank(folder, config, number, colocated=colocated) for number in range(world_size)]
        try:
            codes = [process.wait(240.0) for process in ranks]
            logs = "\n".join((folder / f"rank-{n}" / "log").read_text() for n in range(world_size))
            assert codes == [0] * world_size, logs
        finally:
            for process in ranks:
                process.kill()
                process.wait()
            if producer is not None:
                producer.stop()
        status = status_of(folder, service)
        client = client_of(folder, service.port, "reader")
        metrics = client.metrics(wire.MetricsRequest())
    assert (status.samples_trained, status.exact, status.capture_drift) == (PROMPTS, True, 0)
    return status.weights_sha256, [step.values["loss"] for step in metrics.steps]


@pytest.mark.parametrize("world_size", [1, 2])
def test_losses_and_weights_are_equal_bit_for_bit(tmp_path: Path, target: Path, world_size: int) -> None:
    apart = outcome(tmp_path / "apart", target, colocated=False, world_size=world_size)
    together = outcome(tmp_path / "together", target, colocated=True, world_size=world_size)
    assert len(apart[1]) == PROMPTS // 4
    assert together == apart
