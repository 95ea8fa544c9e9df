"""A whole job in miniature for crash tests: the real service, a producer thread, and a gang of rank processes.

The gang is looked after as a pod's supervisor does it: an exit is reported before anything is started again, and with
one rank all ranks go. What is killed, and where, is said by failpoints of one rank's first life.
"""

import hashlib
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from eyas_contract import env, wire
from eyas_contract.client import MetadataClient
from eyas_contract.config import JobConfig
from eyas_contract.errors import EyasError
from eyas_contract.refs import PromptTask, SampleRef
from eyas_runtime import digests
from eyas_runtime.failpoints import ENV_LOG, ENV_SPEC
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.features.config import open_blobs
from eyas_runtime.metadata.service.settings import read_settings
from support.metadata_service import (
    FINGERPRINT,
    HOLDER,
    ServiceThread,
    client_of,
    free_port,
    job_config,
    lay_out,
    prepared_inputs,
    store_of,
)
from support.waiting import wait_until

LIFE_SECONDS = 60.0
LIVES_MAX = 8


class Forge:
    """The warm interpreter that ranks are forked from; one per test module."""

    def __init__(self, kind: str = "fake") -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("rank_forge.py")), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._codes: dict[int, int] = {}
        threading.Thread(target=self._listen, daemon=True).start()
        assert self._events.get(timeout=60) == {"ready": True}

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))

    def start(self, environment: Mapping[str, str]) -> int:
        """Fork one rank; returns its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dict(environment)).encode() + b"\n")
        self._process.stdin.flush()
        while True:
            event = self._events.get(timeout=LIFE_SECONDS)
            if "code" in event:
                self._codes[event["pid"]] = event["code"]
            elif event["started"] == environment[env.PROCESS]:
                return int(event["pid"])

    def next_exit(self, pids: Sequence[int], *, seconds: float = LIFE_SECONDS) -> tuple[int, int]:
        """(pid, code) of the first of `pids` that has ended."""
        while True:
            for pid in pids:
                if pid in self._codes:
                    return pid, self._codes.pop(pid)
            event = self._events.get(timeout=seconds)
            self._codes[event["pid"]] = event["code"]

    def close(self) -> None:
        """End the interpreter and whatever it forked."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def sample_bytes(sequence: int) -> bytes:
    """What every capture of a fake sample gives."""
    return hashlib.shake_256(f"sample {sequence}".encode()).digest(48)


class ProducerThread:
    """Captures fake samples (or what `capture` makes) through the real service until it is stopped."""

    def __init__(
        self,
        client: MetadataClient,
        blobs: BlobStore,
        prepared: wire.Prepared,
        *,
        capture: Callable[[PromptTask], bytes],
        make_ref: Callable[[PromptTask, BlobStore], SampleRef] | None = None,
    ) -> None:
        self._client, self._blobs, self._prepared, self._capture = client, blobs, prepared, capture
        self._make_ref = make_ref or self._put_bytes
        self._stop = threading.Event()
        self.error: BaseException | None = None
        self.captured: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait."""
        self._stop.set()
        self._client.close()
        self._thread.join(30)

    def _run(self) -> None:
        try:
            self._client.register(wire.RegisterRequest(holder=HOLDER, fingerprint=FINGERPRINT))
            self._client.prepare(wire.PrepareRequest(holder=HOLDER))
            self._client.prepare_commit(wire.PrepareCommitRequest(holder=HOLDER, prepared=self._prepared))
            while not self._stop.is_set():
                self._one_lease()
        except BaseException as error:  # noqa: BLE001  looked at by the test
            if not self._stop.is_set():
                self.error = error

    def _one_lease(self) -> None:
        request = wire.LeaseRequest(holder=HOLDER, request_id=secrets.token_hex(16), wait_seconds=5.0)
        lease = self._client.lease(request).lease
        if lease is None:
            self._stop.wait(0.01)
            return
        refs = tuple(self._make_ref(task, self._blobs) for task in lease.tasks if task.capture)
        self.captured.extend(ref.sequence for ref in refs)
        commit = wire.CommitRequest(holder=HOLDER, lease_id=lease.lease_id, token=lease.token, refs=refs)
        self._client.call(wire.COMMIT, commit)

    def _put_bytes(self, task: PromptTask, blobs: BlobStore) -> SampleRef:
        data = self._capture(task)
        assert task.key is not None
        blobs.put(task.key, data)
        digest = digests.digest_of([data])
        return SampleRef(
            sample_id=task.sample_id,
            sequence=task.sequence,
            key=task.key,
            generation=task.generation,
            digest=digest,
            payload_digest=digest,
            length=len(data),
            num_tokens=task.num_tokens,
            num_supervised=max(1, task.num_tokens - 1),
            feature_specs=(),
            fingerprint=FINGERPRINT.digest,
        )


@dataclass
class Life:
    """How the ranks of one start ended, by rank: exit code, or -signal."""

    codes: dict[int, int] = field(default_factory=dict)


class MiniJob:
    """One job over `folder`: service and producer run until `close`; `run` is the gang."""

    def __init__(
        self,
        folder: Path,
        forge: Forge,
        *,
        world_size: int = 1,
        prompts: int = 12,
        window_size: int = 4,
        every_steps: int = 2,
        capture: Callable[[PromptTask], bytes] = lambda task: sample_bytes(task.sequence),
        config: JobConfig | None = None,
        prepared: wire.Prepared | None = None,
        make_ref: Callable[[PromptTask, BlobStore], SampleRef] | None = None,
        trainer: str = "fake",
    ) -> None:
        self.folder, self.forge, self.world_size = folder, forge, world_size
        folder.mkdir(parents=True, exist_ok=True)
        base = config or job_config(folder, window_size=window_size, every_steps=every_steps)
        self.port = free_port()
        endpoints = msgspec.structs.replace(
            base.endpoints,
            metadata_url=f"http://127.0.0.1:{self.port}",
            rendezvous_host="127.0.0.1",
            rendezvous_port=free_port(),
        )
        self.config = msgspec.structs.replace(base, endpoints=endpoints, world_size=world_size)
        self.environment = {**lay_out(folder, self.config), env.TRAINER: trainer}
        self.service = self._start_service()
        self.blobs = open_blobs(store_of(folder, self.config))
        self.prepared = prepared or prepared_inputs([5 + i % 7 for i in range(prompts)])
        self._capture, self._make_ref = capture, make_ref
        self.producer = self._start_producer()
        self.client = client_of(folder, self.port, "consumer")
        self.lives: list[Life] = []
        self._background: threading.Thread | None = None
        self.attempt = 1

    def _start_service(self) -> ServiceThread:
        return ServiceThread(read_settings(self.environment))

    def _start_producer(self) -> ProducerThread:
        client = client_of(self.folder, self.port, "producer", deadline_seconds=None)
        return ProducerThread(client, self.blobs, self.prepared, capture=self._capture, make_ref=self._make_ref)

    def restart_service(self) -> None:
        """The service stops and comes back."""
        self.service.stop()
        self.service = self._start_service()

    def restart_with_a_new_volume(self) -> None:
        """The metadata volume is lost: the next store epoch begins with an empty one."""
        self.producer.stop()
        self.service.stop()
        for path in (self.folder / "metadata").iterdir():
            path.unlink()
        self.config = msgspec.structs.replace(self.config, store_epoch=self.config.store_epoch + 1)
        self.environment.update(lay_out(self.folder, self.config))
        self.service = self._start_service()
        self.producer = self._start_producer()

    def wait_for_samples(self, count: int) -> None:
        """Until so many samples were committed."""
        wait_until(lambda: self.status().samples_committed >= count, f"{count} samples")

    def wait_for_step(self, step: int) -> None:
        """Until that step was acked."""
        wait_until(lambda: self.status().acked_step >= step, f"step {step}")

    def replace_pods(self) -> None:
        """The next attempt: new pods, at another address."""
        self.attempt += 1
        endpoints = msgspec.structs.replace(self.config.endpoints, rendezvous_port=free_port())
        self.config = msgspec.structs.replace(self.config, endpoints=endpoints)
        self.environment.update(lay_out(self.folder, self.config))

    def wait_until_stopped(self, pid: int) -> None:
        """Until the process is stopped by a signal."""
        stat = Path(f"/proc/{pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "the rank to stop")

    @property
    def checkpoints(self) -> Path:
        """The checkpoint folder."""
        return Path(self.config.training.checkpoint.path)

    def run(self, failpoints: Sequence[Mapping[int, str]] = (), *, lives_max: int = LIVES_MAX) -> None:
        """Start the gang again and again until all ranks end with 0. `failpoints[i]` arms ranks in life i."""
        for number in range(lives_max):
            armed = failpoints[number] if number < len(failpoints) else {}
            life = self.one_life(armed)
            if set(life.codes.values()) == {0}:
                return
            assert 78 not in life.codes.values(), self.logs()
        raise AssertionError(f"not finished after {lives_max} lives: {self.lives}\n{self.logs()}")

    def start_ranks(self, armed: Mapping[int, str] | None = None) -> dict[int, tuple[int, str]]:
        """Start every rank; returns (rank, process nonce) by pid."""
        started = {}
        for rank in range(self.world_size):
            process = secrets.token_hex(16)
            environment = {
                **self.environment,
                env.RANK: str(rank),
                env.LOCAL_RANK: str(rank),
                env.WORLD_SIZE: str(self.world_size),
                env.ATTEMPT: str(self.attempt),
                env.PROCESS: process,
                env.ROLE: "consumer",
                env.TERMINATION_LOG: str(self.folder / f"termination-{rank}"),
                "RANK_LOG": str(self.folder / f"rank-{rank}.log"),
                ENV_SPEC: (armed or {}).get(rank, ""),
                ENV_LOG: str(self.folder / f"hits-{rank}"),
            }
            started[self.forge.start(environment)] = (rank, process)
        return started

    def one_life(self, armed: Mapping[int, str] | None = None) -> Life:
        """Start the ranks; at the first that fails, report it, kill the others, and return."""
        life = Life()
        self.lives.append(life)
        live = self.start_ranks(armed)
        while live:
            pid, code = self.forge.next_exit(list(live))
            rank, process = live.pop(pid)
            life.codes[rank] = code
            self._report(rank, process, code)
            if code != 0:
                for other in live:
                    with suppress(ProcessLookupError):
                        os.kill(other, signal.SIGKILL)
        return life

    def start_in_background(self) -> None:
        """`one_life` in a thread, so that the test can do things to the rest of the job meanwhile."""
        self._background = threading.Thread(target=self.one_life, daemon=True)
        self._background.start()

    def background_life(self) -> None:
        """Wait for the end of that life."""
        assert self._background is not None
        self._background.join(LIFE_SECONDS)
        assert not self._background.is_alive()

    def _report(self, rank: int, process: str, code: int) -> None:
        try:
            self.client.call(
                wire.EXIT,
                wire.ExitRequest(attempt=self.attempt, rank=rank, process=process, code=code, reason="test"),
            )
        except EyasError as error:
            (self.folder / "reports").open("a").write(f"{rank} {code}: {error}\n")

    def status(self) -> wire.StatusReply:
        """What the service says."""
        return self.client.call(wire.STATUS, wire.Empty())

    def audit(self) -> wire.AuditReply:
        """The ledger's account."""
        return self.client.call(wire.AUDIT, wire.Empty())

    def hits(self, rank: int = 0) -> list[str]:
        """Names of the failpoints that `rank` passed, in order, over all lives."""
        path = self.folder / f"hits-{rank}"
        return path.read_text().split() if path.exists() else []

    def directories(self) -> list[str]:
        """Checkpoint directories on disk."""
        return sorted(path.name for path in self.checkpoints.iterdir() if path.name.startswith("step-"))

    def logs(self) -> str:
        """What the ranks wrote, for a failed assertion."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("rank-*.log"))
        )

    def close(self) -> None:
        """Stop producer and service."""
        self.producer.stop()
        self.client.close()
        self.service.stop()
        self.blobs.close()

    def __enter__(self) -> "MiniJob":
        return self

    def __exit__(self, *rest: object) -> None:
        self.close()
