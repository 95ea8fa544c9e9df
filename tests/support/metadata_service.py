"""A real metadata service for tests: its files in a folder, run in a thread here or as a process of its own."""

import asyncio
import base64
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from eyas_contract import env, wire
from eyas_contract.client import MetadataClient
from eyas_contract.config import (
    CheckpointConfig,
    DataConfig,
    DraftConfig,
    Endpoints,
    JobConfig,
    RecoveryConfig,
    StoreConfig,
    TargetConfig,
    TrainingConfig,
)
from eyas_contract.ids import JobUid
from eyas_contract.refs import FeatureSpec, PromptTask, SampleRef
from eyas_runtime.features import config as features
from eyas_runtime.metadata.service.run import Service
from eyas_runtime.metadata.service.settings import Settings, read_settings
from eyas_runtime.metadata.service.stores import blobs_opener, store_opener
from support.waiting import wait_until

UID = JobUid("testjob0")
TOKENS: dict[wire.RoleName, str] = {"producer": "p" * 43, "consumer": "c" * 43, "reader": "r" * 43, "store": "s" * 43}
TOKEN_FILES: dict[wire.RoleName, str] = {
    "producer": env.TOKEN_PRODUCER,
    "consumer": env.TOKEN_CONSUMER,
    "reader": env.TOKEN_READER,
    "store": env.TOKEN_STORE,
}
HOLDER = wire.Holder(index=0, ordinal=1, restart=0)
FINGERPRINT = wire.Fingerprint(facts={"device": "cpu"}, digest="f" * 16)
BYTES_PER_TOKEN = 16
BYTES_PER_SAMPLE = 100


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def job_config(
    folder: Path,
    *,
    port: int = 0,
    store_epoch: int = 1,
    window_size: int = 2,
    group_size: int = 2,
    epochs: int = 1,
    max_resident_bytes: int = 1 << 30,
    every_steps: int = 4,
    recovery: RecoveryConfig | None = None,
    features: bool = False,
) -> JobConfig:
    """The configuration of a small job whose files are in `folder`."""
    return JobConfig(
        name="test",
        job_uid=UID,
        store_epoch=store_epoch,
        target=TargetConfig(model="/models/tiny"),
        data=DataConfig(
            prompts=() if features else ("/data/prompts.jsonl",),
            features=("/data/features",) if features else (),
            max_length=64,
            group_size=group_size,
            epochs=epochs,
        ),
        draft=DraftConfig(vocab_size=8, steps=2),
        training=TrainingConfig(
            window_size=window_size,
            checkpoint=CheckpointConfig(path=str(folder / "checkpoints"), every_steps=every_steps, keep=2),
        ),
        store=StoreConfig(backend="SharedDirectory", max_resident_bytes=max_resident_bytes, path=str(folder / "store")),
        recovery=recovery or RecoveryConfig(),
        endpoints=Endpoints(metadata_url=f"http://127.0.0.1:{port}", rendezvous_host="127.0.0.1", rendezvous_port=1),
        producers=1,
        world_size=1,
    )


def lay_out(folder: Path, config: JobConfig) -> dict[str, str]:
    """Write what the metadata pod is mounted and return its environment."""
    for name in ("metadata", "store", "secrets", "pod"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_bytes(msgspec.json.encode(config))
    for role, token in TOKENS.items():
        (folder / "secrets" / TOKEN_FILES[role]).write_text(token + "\n")
    (folder / "secrets" / env.RECEIPT_KEY).write_text("k" * 64)
    return {
        env.CONFIG_FILE: str(folder / "job.json"),
        env.TOKEN_DIRECTORY: str(folder / "secrets"),
        env.METADATA_DIRECTORY: str(folder / "metadata"),
        env.HOST_ADDRESS: "127.0.0.1",
        env.POD_DIRECTORY: str(folder / "pod"),
        env.ROLE: "metadata",
        env.JOB_UID: config.job_uid,
    }


def store_of(folder: Path, config: JobConfig) -> features.StoreConfig:
    """The job's store as one who holds its token reaches it."""
    return features.StoreConfig.of_job(config.store, token_file=folder / "secrets" / env.TOKEN_STORE)


def client_of(
    folder: Path, port: int, role: wire.RoleName, *, deadline_seconds: float | None = 30.0, store_epoch: int = 0
) -> MetadataClient:
    """A client that holds the token of `role`."""
    return MetadataClient(
        f"http://127.0.0.1:{port}",
        str(folder / "secrets" / TOKEN_FILES[role]),
        deadline_seconds=deadline_seconds,
        store_epoch=store_epoch,
    )


class ServiceThread:
    """The service in a thread of this process, on a port of its own."""

    def __init__(self, settings: Settings, *, bind_itself: bool = False) -> None:
        self.settings = settings
        self.code: int | None = None
        self.error: BaseException | None = None
        self._ready = threading.Event()
        self._service = Service(
            settings,
            open_store=store_opener(settings),
            open_blobs=blobs_opener(settings),
            on_ready=self._ready.set,
        )
        self._listener = None if bind_itself else socket.create_server(("127.0.0.1", settings.port))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(lambda: self._ready.is_set() or self.error is not None, "the service to be ready")
        if self.error is not None and not self._ready.is_set():
            raise self.error

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.settings.port

    def waiters(self) -> int:
        """Long polls that are waiting now."""
        return self._service.waiters()

    def _run(self) -> None:
        try:
            self.code = self._loop.run_until_complete(self._service.run(self._listener))
        except BaseException as error:  # noqa: BLE001 handed to the test by `stop` and `ended`
            self.error = error
        finally:
            self._loop.close()

    def stop(self) -> None:
        """Stop as SIGTERM does, and wait."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._service.stop)
        self.ended()

    def ended(self) -> None:
        """Wait for the end without asking for it."""
        self._thread.join(30.0)
        assert not self._thread.is_alive()


@contextmanager
def running_service(folder: Path, config: JobConfig | None = None) -> Iterator[ServiceThread]:
    """A service over `folder` for the time of a `with` block."""
    port = free_port()
    config = config or job_config(folder)
    endpoints = msgspec.structs.replace(config.endpoints, metadata_url=f"http://127.0.0.1:{port}")
    config = msgspec.structs.replace(config, endpoints=endpoints)
    service = ServiceThread(read_settings(lay_out(folder, config)))
    try:
        yield service
    finally:
        service.stop()


class ServiceProcess:
    """The service as it is run in a pod: a process that can be killed."""

    def __init__(self, folder: Path, config: JobConfig, *, without: str = "", **environment: str) -> None:
        self._log = (folder / "service.log").open("ab")
        self.ready_file = folder / "pod" / env.READY_FILE
        variables = {**os.environ, **lay_out(folder, config), **environment}
        self.ready_file.unlink(missing_ok=True)
        if without:
            (folder / without).unlink()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "eyas_runtime.metadata.service"],
            env=variables,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def wait_ready(self) -> "ServiceProcess":
        """Wait until it answers."""
        wait_until(lambda: self.ready_file.exists() or self.process.poll() is not None, "the service to be ready")
        assert self.process.poll() is None, "the service ended before it was ready"
        return self

    def kill(self) -> None:
        """SIGKILL, and reap."""
        self.process.kill()
        self.process.wait(30.0)
        self._log.close()

    def terminate(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.terminate()
        code = self.process.wait(30.0)
        self._log.close()
        return code


def prepared_inputs(token_counts: list[int]) -> wire.Prepared:
    """Prepared inputs of as many prompts as there are counts."""
    count = len(token_counts)

    def packed(kind: str, values: list[int]) -> str:
        return base64.b64encode(struct.pack(f"<{len(values)}{kind}", *values)).decode("ascii")

    return wire.Prepared(
        inputs=wire.Inputs(data="d", tokenizer="t", template="m", target="g"),
        prompt_count=count,
        file_indices=packed("H", [0] * count),
        offsets=packed("Q", list(range(count))),
        token_counts=packed("I", token_counts),
        supervised_counts=packed("I", [max(1, tokens - 1) for tokens in token_counts]),
        draft_to_target=packed("q", [0] * 8),
        target_vocab_size=8,
        hidden_size=4,
        bytes_per_token=BYTES_PER_TOKEN,
        bytes_per_sample=BYTES_PER_SAMPLE,
    )


def ref_of(task: PromptTask, *, payload: str = "") -> SampleRef:
    """A ref to what a producer would have captured for `task`."""
    assert task.key is not None
    return SampleRef(
        sample_id=task.sample_id,
        sequence=task.sequence,
        key=task.key,
        generation=task.generation,
        digest=f"blake3:{task.sequence:064x}",
        payload_digest=f"blake3:{payload or task.sequence:0>64}",
        length=task.num_tokens * BYTES_PER_TOKEN + BYTES_PER_SAMPLE,
        num_tokens=task.num_tokens,
        num_supervised=max(1, task.num_tokens - 1),
        feature_specs=(FeatureSpec(name="hidden_state", shape=(task.num_tokens, 4), dtype="float32"),),
        fingerprint=FINGERPRINT.digest,
    )


def refs_of(lease: wire.CaptureLease) -> tuple[SampleRef, ...]:
    """Refs for every member of `lease` that is to be captured."""
    return tuple(ref_of(task) for task in lease.tasks if task.capture)
