"""Whole local runs under hostile conditions: nothing wrong is trained, nothing is lost, and the user reads why.

Every case either ends with the very weights of a run that nobody disturbed, or is refused with one sentence that names
the file, the field or the address, and with the exit code of the table. No case ends in a traceback.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from eyas_contract import env, wire
from eyas_contract.config import JobConfig, read_config
from eyas_contract.exits import Exit
from eyas_contract.ids import generation_of, key_prefix
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.features.config import StoreConfig, open_blobs
from support.damage import damage
from support.feature_files import write_feature_files
from support.local_job import LocalJob, local_job, tiny_job
from support.tiny_target import make_tiny_target, tiny_messages
from support.waiting import wait_until

pytestmark = pytest.mark.slow
PROMPTS = 48
RANKS = 2
LONG_WORDS = 3000
"""Words of one prompt that is many times longer than `maxLength`."""
MOONCAKE = {"store.backend": "Mooncake", "store.mooncake": {"nodes": {"replicas": 1, "segmentSize": "64Mi"}}}
PATIENT = {"recovery.hangSeconds": 600}
"""Ranks that a test has stopped are not taken for hung."""
HELD = {"EYAS_FAILPOINTS": "train.before_step=stop@2"}
"""Every rank stops before its second step, while the producers fill the store."""
TRACEBACK = "Traceback (most recent call last)"


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    make_tiny_target(folder / "models" / "tiny")
    (folder / "data").mkdir()
    messages = [tiny_messages(index) for index in range(PROMPTS - 1)]
    messages.append([{"role": "user", "content": "hawk"}, {"role": "assistant", "content": "air " * LONG_WORDS}])
    lines = [json.dumps({"messages": each}) for each in messages]
    (folder / "data" / "prompts.jsonl").write_text("\n".join(lines))
    return {"models": folder / "models", "data": folder / "data"}


@pytest.fixture(scope="module")
def undisturbed(volumes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """SHA-256 of the weights that every case has to end with. One prompt is far too long: cut, and trained."""
    with local_job(tmp_path_factory.mktemp("undisturbed"), volumes) as job:
        result = job.finish()
    assert (result["state"], result["exact"]) == ("Complete", True)
    assert (result["samplesTrained"], result["samplesDeadLettered"]) == (PROMPTS, 0)
    return str(result["weightsSha256"])


def assert_unharmed(job: LocalJob, undisturbed: str) -> dict[str, Any]:
    result = job.finish()
    assert (result["state"], result["exact"], result["weightsSha256"]) == ("Complete", True, undisturbed)
    audit = job.audit()
    assert (audit["trainedOnce"], audit["trainedTwice"], audit["missing"]) == (PROMPTS, 0, 0)
    assert (audit["residentObjects"], audit["liveLeases"]) == (0, 0)
    assert TRACEBACK not in job.output.read_text(errors="replace")
    return result


def go_on(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def config_of(job: LocalJob) -> JobConfig:
    found = job.wait_until("the job's configuration", lambda: sorted(job.workdir.glob("pods/*/config/*.json")))
    return read_config(str(found[0]))


# --- a: the store lies ---


@contextmanager
def pool_of(job: LocalJob) -> Iterator[BlobStore]:
    """The run's own pool, entered from outside as any neighbour on the network could."""
    blobs = open_blobs(StoreConfig.of_job(config_of(job).store, local_hostname="127.0.1.77"))
    try:
        yield blobs
    finally:
        blobs.close()


def keys_of(blobs: BlobStore, config: JobConfig) -> list[str]:
    """Resident objects, newest last."""
    return sorted((entry.key for entry in blobs.list(key_prefix(config.job_uid))), key=generation_of)


def replace(blobs: BlobStore, key: str, content: bytes | None) -> None:
    """Put `content` under the key of a stored object; None: only take the object away."""
    wait_until(lambda: blobs.delete(key), f"nobody reads {key}")
    if content is not None:
        blobs.put(key, content)


def test_objects_changed_cut_or_deleted_behind_our_back_are_captured_again(
    volumes: dict[str, Path], undisturbed: str, tmp_path: Path
) -> None:
    with local_job(tmp_path, volumes, HELD, **MOONCAKE, **PATIENT) as job:
        ranks = job.wait_stopped("consumer", RANKS)
        config = config_of(job)
        with pool_of(job) as blobs:
            job.wait_until("a store that is full", lambda: (job.status() or _nothing()).paused)
            *_, changed, flipped, cut, gone = keys_of(blobs, config)
            length = blobs.size(flipped) or 0
            whole = bytearray(blobs.get(flipped, length))
            whole[length // 2] ^= 1
            replace(blobs, changed, b"\xff" * (blobs.size(changed) or 0))
            replace(blobs, flipped, bytes(whole))
            replace(blobs, cut, b"\0" * 10)
            replace(blobs, gone, None)
        go_on(ranks)
        result = assert_unharmed(job, undisturbed)
        assert result["samplesLostAndRecaptured"] == 4


# --- c, e, f: strangers at the door, and a job file that changed its mind ---


def ask(address: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
    """Status and message of one call with a plain HTTP client."""
    connection = http.client.HTTPConnection(address, env.METADATA_PORT, timeout=30)
    try:
        connection.request("POST", path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, str(json.loads(answer.read())["message"])
    finally:
        connection.close()


def token_of(job: LocalJob, name: str) -> dict[str, str]:
    file = next(job.workdir.glob(f"secrets/*/{name}"))
    return {"Authorization": f"Bearer {file.read_text().strip()}"}


def assert_the_service_refuses_strangers(job: LocalJob) -> None:
    (service,) = job.processes("metadata")
    producer, consumer = token_of(job, env.TOKEN_PRODUCER), token_of(job, env.TOKEN_CONSUMER)
    lease, lost, long = "/v1/lease", "/v1/lost", b"x" * (1 << 20)

    def answer(path: str, body: bytes = b"{}", headers: Mapping[str, str] = {}) -> tuple[int, str]:
        return ask(service.address, path, body, headers)

    assert answer(lease) == (401, "the bearer token is missing or wrong")
    assert answer(lease, headers={"Authorization": "Bearer " + "0" * 64}) == (
        401,
        "the bearer token is missing or wrong",
    )
    assert answer(lease, headers=consumer) == (403, "this token may not call /v1/lease")
    assert answer(lease, long, producer) == (413, f"a body of {len(long)} bytes is over 65536")
    assert answer(lease, long) == (413, f"a body of {len(long)} bytes is over 65536"), "limits come before tokens"
    assert answer("/v1/../../etc/passwd", b"", producer) == (404, "the metadata service has no such path")
    sample = {"sample_id": "../../etc/passwd", "generation": 1, "sequence": 1, "reason": "gone"}
    hostile = json.dumps({"incarnation": "../../x", "samples": [sample]}).encode()
    status, sentence = answer(lost, hostile, consumer)
    assert status in (400, 410), sentence
    assert "passwd" not in sentence, "what a stranger sends is not repeated"


def test_strangers_a_second_run_a_taken_port_and_a_changed_job_are_turned_away(
    volumes: dict[str, Path], undisturbed: str, tmp_path: Path
) -> None:
    with local_job(tmp_path, volumes, HELD, **PATIENT) as job:
        job.wait_stopped("consumer", RANKS)
        (service,) = job.processes("metadata")
        assert_the_service_refuses_strangers(job)
        second = LocalJob(job.job, job.workdir, volumes, {})
        second.output = tmp_path / "second.out"
        assert job.process is not None
        code, sentence = second.refused()
        assert (code, sentence) == (
            Exit.TEMPORARY,
            f"{job.workdir} is in use by another runner, process {job.process.pid}",
        )
        job.kill_tree()
        calm = LocalJob(job.job, job.workdir, volumes, {})
        assert_changes_are_refused(calm)
        assert_a_taken_port_is_named(calm, service.address, env.METADATA_PORT)
        assert_unharmed(calm.start(), undisturbed)


def assert_changes_are_refused(job: LocalJob) -> None:
    text = job.job.read_text()
    for old, new, part in (
        ("seed: 7", "seed: 8", "spec.data"),
        ("learningRate: 0.001", "learningRate: 0.002", "spec.training"),
    ):
        job.job.write_text(text.replace(old, new))
        code, sentence = job.refused()
        assert code == Exit.CONFIG
        assert sentence.startswith(f"{part} cannot change: {job.workdir} holds a run with other values"), sentence
    job.job.write_text(text.replace("name: tiny", "name: other"))
    assert job.refused() == (Exit.CONFIG, f"{job.workdir} holds the run of job tiny; use another folder for other")
    job.job.write_text(text)


def assert_a_taken_port_is_named(job: LocalJob, address: str, port: int) -> None:
    with socket.create_server((address, port)):
        code, said = job.refused()
    sentence = said.splitlines()[-1]
    assert code == Exit.CONFIG
    assert sentence.startswith(f"{address}:{port} is taken by process {os.getpid()} ("), said


# --- d: full and forbidden disks ---


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of `size` in memory at the new folder `folder`."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"\0" * 4096)
            except OSError:
                return ballast


def test_a_full_disk_under_the_run_is_named_and_the_run_goes_on_when_there_is_room(
    volumes: dict[str, Path], undisturbed: str, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk, local_job(disk, volumes) as job:
        job.wait_for_step(1)
        ballast = fill(disk)
        assert job.process is not None
        code = job.process.wait(timeout=120)
        ballast.unlink()
        said = job.output.read_text(errors="replace").strip()
        assert code == Exit.TEMPORARY, said
        assert said.splitlines()[-1].startswith(str(job.workdir))
        assert "No space left on device; make room there and run the same command again" in said.splitlines()[-1]
        assert_unharmed(job.start(), undisturbed)


def test_a_full_checkpoint_volume_holds_the_run_up_and_changes_nothing(
    volumes: dict[str, Path], undisturbed: str, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        claimed = {"volumes.checkpoints": {"claimName": "kept"}}
        with local_job(tmp_path / "job", volumes | {"checkpoints": disk}, **claimed) as job:
            job.wait_for_step(1)
            ballast = fill(disk)
            status = job.wait_until("the incident", lambda: _incident(job, "no room for a checkpoint"))
            assert str(disk) in status, status
            ballast.unlink()
            assert_unharmed(job, undisturbed)


def _incident(job: LocalJob, words: str) -> str | None:
    found = json.loads((job.workdir / "status.json").read_text()).get("incidents", [])
    return next((str(entry["message"]) for entry in found if words in str(entry["message"])), None)


def test_a_folder_that_cannot_be_written_is_refused_at_once(volumes: dict[str, Path], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        job = LocalJob(tiny_job(tmp_path), disk / "run", volumes, {})
        job.output = tmp_path / "out"
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert job.refused() == (Exit.CONFIG, f"cannot make the folder of the run {job.workdir}: Read-only file system")


# --- g: a damaged database ---


def test_a_database_damaged_in_mid_run_begins_a_new_epoch_and_changes_no_bit(
    volumes: dict[str, Path], undisturbed: str, tmp_path: Path
) -> None:
    with local_job(tmp_path, volumes) as job:
        job.wait_until("a checkpoint", lambda: (status := job.status()) is not None and status.durable_step > 0)
        # Stopped, it cannot come back and look at the file before the damage is done.
        job.kill("metadata", number=signal.SIGSTOP)
        job.wait_stopped("metadata", 1)
        database = next((job.workdir / "claims").glob("*metadata*/metadata.sqlite"))
        damage(database, "text")
        garbage = database.read_bytes()
        job.kill("metadata")
        result = assert_unharmed(job, undisturbed)
        incident, restored = [entry for entry in result["incidents"] if entry["unit"] == "metadata"]
        assert (restored["class"], restored["source"]) == ("MetadataRestored", "Service")
        assert (incident["class"], incident["outcome"], incident["counted"]) == ("MetadataDamaged", "Recovered", False)
        assert f"{database} is damaged" in incident["message"]
        assert "it stays where it is, in claim " in incident["message"]
        assert json.loads((job.workdir / "status.json").read_text())["storeEpoch"] == 2
        assert database.read_bytes() == garbage


# --- b, f: inputs that are not what they say ---


class Program:
    """What a stranger's pickle would run."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


def hurt_inputs(what: str, folder: Path) -> tuple[dict[str, object], str]:
    """Write hostile inputs into `folder`; the job's changes, and words that the sentence must have."""
    if what == "prompts":
        (folder / "prompts.jsonl").write_text('{"text": "hawk"}\nnot JSON\n')
        return {}, f"{folder}/prompts.jsonl line 2 is not a prompt: JSON is malformed"
    if what == "no prompts":
        (folder / "prompts.jsonl").write_text("\n")
        return {}, f"{folder}/prompts.jsonl holds no prompt"
    write_feature_files(folder / "features", 4)
    offline: dict[str, object] = {"data.prompts": None, "data.features": ["/data/features"]}
    if what == "a program":
        torch.save({"input_ids": Program(folder / "ran")}, folder / "features" / "0002.ckpt")
        return offline, f"{folder}/features/0002.ckpt holds a pickled program instead of plain tensors: it asks for "
    if what == "half a file":
        file = folder / "features" / "0002.ckpt"
        file.write_bytes(file.read_bytes()[:700])
        return offline, f"{file} is not a whole torch file"
    entry = {"name": "../../etc/passwd", "nbytes": 1, "digest": "blake3:0", "num_tokens": 1, "num_supervised": 1}
    manifest = {"schema": 1, "hidden_size": 32, "max_length": 64, "files": [entry]}
    (folder / "set.json").write_text(json.dumps(manifest))
    return offline | {"data.features": ["/data/set.json"]}, "names '../../etc/passwd', which is not a plain path below"


@pytest.mark.parametrize("what", ["prompts", "no prompts", "a program", "half a file", "a path"])
def test_inputs_that_are_not_what_they_say_fail_the_job_at_once_with_their_name(
    what: str, volumes: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    changes, words = hurt_inputs(what, folder)
    job = LocalJob(tiny_job(tmp_path, **changes), tmp_path / "run", {"models": volumes["models"], "data": folder}, {})
    code, said = job.refused()
    result = job.run.result()
    assert (code, result["state"]) == (Exit.CONFIG, "Failed")
    assert words in result["reason"]
    assert words in said
    assert TRACEBACK not in said
    assert result["samplesTrained"] == 0
    assert not (folder / "ran").exists(), "a stranger's program was run"


def _nothing() -> wire.StatusReply:
    raise AssertionError("the metadata service does not answer")
