"""The parts of the local backend by themselves: addresses, claims, secrets, objects, environment, locks, processes."""

import os
import signal
import socket
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml

from eyas_contract.errors import Conflict, Transient, UserError
from eyas_operator.backends.local import memory, processes
from eyas_operator.backends.local.addresses import address_of, taken
from eyas_operator.backends.local.claims import MARKER_FILE, Claims
from eyas_operator.backends.local.environment import LocalEnvironment
from eyas_operator.backends.local.folder import Workdir, create_file, read_json, remove_tree, replace_file
from eyas_operator.backends.local.job import check_paths, load
from eyas_operator.backends.local.kubelet import bury
from eyas_operator.backends.local.lock import owned
from eyas_operator.backends.local.objects import Objects
from eyas_operator.backends.local.secrets import Secrets
from eyas_operator.cluster import SecretShape
from eyas_operator.errors import SpecError
from eyas_operator.names import LABEL_JOB_UID, JobIdentity, PodIdentity, Role
from eyas_operator.world import Manifest
from support.operator_world import a_body
from support.waiting import wait_dead, wait_until

JOB = JobIdentity(namespace="default", name="job", uid="0f0e0d0c-0000-4000-8000-000000000001")


def manifest(name: str, *, kind: str = "ConfigMap", uid: str = JOB.uid) -> Manifest:
    return {"kind": kind, "metadata": {"name": name, "labels": {LABEL_JOB_UID: uid}}, "data": {"a": "b"}}


# --- addresses ---


def test_an_address_is_a_function_of_job_role_and_index_outside_the_usual_network() -> None:
    found = {address_of(JOB.job_uid, role, index) for role in Role for index in range(200)}
    assert len(found) == len(Role) * 200
    assert all(address.startswith("127.") and not address.startswith("127.0.") for address in found)
    assert address_of(JOB.job_uid, Role.PRODUCER, 3) == address_of(JOB.job_uid, Role.PRODUCER, 3)
    assert address_of("another0job", Role.PRODUCER, 3) != address_of(JOB.job_uid, Role.PRODUCER, 3)


@pytest.mark.parametrize("bound", ["127.9.8.7", "0.0.0.0"])  # noqa: S104
def test_a_taken_port_names_its_owner(bound: str) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((bound, 0))
        other.listen()
        port = other.getsockname()[1]
        found = taken("127.9.8.7", port)
        assert found is not None
        assert f"127.9.8.7:{port} is taken by process {os.getpid()} (" in found.sentence
    assert taken("127.9.8.7", port) is None


# --- claims ---


def test_a_claim_is_its_folder_with_its_own_marker(tmp_path: Path) -> None:
    claims = Claims(tmp_path, JOB.stem)
    claim = f"{JOB.stem}-metadata-e1"
    claims.make(claim, "uid-1")
    assert claims.folder(claim) == tmp_path / "metadata-e1"
    assert claims.present(claim, "uid-1")
    assert not claims.present(claim, "uid-2")


@pytest.mark.parametrize("damage", ["folder", "marker", "other marker"])
def test_a_claim_without_its_folder_or_marker_is_gone(tmp_path: Path, damage: str) -> None:
    claims = Claims(tmp_path, JOB.stem)
    claims.make("store", "uid-1")
    match damage:
        case "folder":
            remove_tree(tmp_path / "store")
        case "marker":
            (tmp_path / "store" / MARKER_FILE).unlink()
        case _:
            (tmp_path / "store" / MARKER_FILE).write_text('{"name": "store", "uid": "uid-0"}')
    assert not claims.present("store", "uid-1")


def test_only_the_folder_of_this_very_claim_is_deleted(tmp_path: Path) -> None:
    claims = Claims(tmp_path, JOB.stem)
    claims.make("store", "uid-1")
    claims.remove("store", "uid-2")
    assert (tmp_path / "store").exists()
    claims.remove("store", "uid-1")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", f"{JOB.stem}-"])
def test_a_claim_name_cannot_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError):
        Claims(tmp_path, JOB.stem).folder(name)


# --- secrets ---


def shape(*minted: str, derived: tuple[str, ...] = ()) -> SecretShape:
    return SecretShape(manifest={"metadata": {"name": "tokens"}}, minted=minted, derived=derived)


def test_minted_values_are_random_private_and_written_once(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path, JOB.job_uid)
    secrets.ensure(shape("a", "b"))
    first = {key: secrets.path("tokens", key).read_bytes() for key in "ab"}
    secrets.ensure(shape("a", "b", "c"))
    assert first == {key: secrets.path("tokens", key).read_bytes() for key in "ab"}
    assert first["a"] != first["b"]
    assert all(len(value.strip()) == 64 for value in first.values())
    assert stat.S_IMODE(secrets.path("tokens", "c").stat().st_mode) == 0o600


def test_derived_values_are_the_same_at_every_pass_and_differ_by_job(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path, JOB.job_uid)
    secrets.ensure(shape(derived=("reader",)))
    first = secrets.path("tokens", "reader").read_bytes()
    before = secrets.path("tokens", "reader").stat().st_mtime_ns
    secrets.ensure(shape(derived=("reader",)))
    assert secrets.path("tokens", "reader").stat().st_mtime_ns == before
    Secrets(tmp_path, "another0job").ensure(shape(derived=("reader",)))
    assert secrets.path("tokens", "reader").read_bytes() != first


def test_a_file_is_created_whole_and_never_over_another(tmp_path: Path) -> None:
    assert create_file(tmp_path / "key", b"one", mode=0o600)
    assert not create_file(tmp_path / "key", b"two", mode=0o600)
    assert (tmp_path / "key").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_failed_replacement_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    replace_file(tmp_path / "status.json", b"{}")
    with pytest.raises(TypeError):
        replace_file(tmp_path / "status.json", "text")  # type: ignore[arg-type]
    assert read_json(tmp_path / "status.json") == {}
    assert len(list(tmp_path.iterdir())) == 1


# --- objects ---


def test_create_keeps_an_object_of_this_job_and_refuses_a_strangers(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    made = objects.create(manifest("config"), uid="u1", now="2026-01-01T00:00:00Z")
    again = objects.create(manifest("config"), uid="u2", now="2026-01-02T00:00:00Z")
    assert again == made
    with pytest.raises(Conflict):
        objects.create(manifest("config", uid="another"), uid="u3", now="")


def test_apply_keeps_the_identity_of_what_it_changes(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    first = objects.apply(manifest("svc", kind="Service"), now="2026-01-01T00:00:00Z")
    second = objects.apply(manifest("svc", kind="Service") | {"spec": {"x": 1}}, now="2026-01-02T00:00:00Z")
    assert (second.uid, second.created) == (first.uid, first.created)
    assert objects.all() == [second]


# --- the builders' environment ---


def environment(tmp_path: Path) -> LocalEnvironment:
    return LocalEnvironment(
        workdir=Workdir(tmp_path / "run"),
        python="python",
        job_folder=tmp_path / "jobs",
        mounted={"models": tmp_path / "m", "checkpoints": tmp_path / "c"},
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/models/llama", "m/llama"),
        ("/models", "m"),
        ("/models/a/../b", "m/b"),
        ("data.jsonl", "jobs/data.jsonl"),
        ("../x", "x"),
    ],
)
def test_paths_of_a_job_are_found_on_this_machine(tmp_path: Path, path: str, expected: str) -> None:
    assert environment(tmp_path).resolve(JOB, path) == str(tmp_path / expected)


def test_a_path_without_a_mapped_volume_is_the_machines_own(tmp_path: Path) -> None:
    assert environment(tmp_path).resolve(JOB, "/data/prompts.jsonl") == "/data/prompts.jsonl"
    assert environment(tmp_path).resolve(JOB, "/modelsx/y") == "/modelsx/y"


def test_a_path_cannot_lead_out_of_its_volume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leads out of the volume models"):
        environment(tmp_path).resolve(JOB, "/models/../../etc/passwd")


def test_every_path_that_is_not_there_is_told_with_its_field(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(a_body(target={"model": "/models/../../etc"}, data={"prompts": ["no.jsonl"]})))
    with pytest.raises(SpecError) as caught:
        check_paths(load(file), JOB, environment(tmp_path))
    assert caught.value.lines == (
        "spec.target.model: /models/../../etc leads out of the volume models",
        f"spec.data.prompts[0]: there is no {tmp_path / 'jobs' / 'no.jsonl'}",
    )


def test_a_role_keeps_its_address_when_its_pod_is_replaced(tmp_path: Path) -> None:
    where = environment(tmp_path)
    old = PodIdentity(role=Role.METADATA, index=0, serial=1, store_epoch=1)
    new = PodIdentity(role=Role.METADATA, index=0, serial=2, store_epoch=2)
    assert where.own_address(JOB, old) == where.pod_host(JOB, new) == where.service_host(JOB, Role.METADATA)


# --- locks and processes ---


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with owned(tmp_path / "lock"), pytest.raises(Transient, match=f"process {os.getpid()}"), owned(tmp_path / "lock"):
        pytest.fail("two owners")
    with owned(tmp_path / "lock"):
        pass


def sleeper(**variables: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "1000"], env=os.environ | variables, start_new_session=True)


def test_only_processes_with_the_very_marker_are_buried() -> None:
    run = f"run-{uuid.uuid4().hex}"
    ours = sleeper(**{processes.RUN_MARKER: run})
    stranger = sleeper(**{processes.RUN_MARKER: f"{run}0"})
    try:
        wait_until(lambda: processes.marked(run), "the marker to be visible")
        # A zombie's environment is empty: it no longer counts, and its parent (this test) may take its time.
        assert bury(run) == [ours.pid]
        wait_dead(ours.pid)
        assert stranger.poll() is None
        assert processes.marked(f"{run}0") == [stranger.pid]
    finally:
        for process in (ours, stranger):
            process.kill()
            process.wait()


def test_a_session_is_killed_with_what_is_stopped_in_it() -> None:
    leader = subprocess.Popen(["sh", "-c", "sleep 1000 & sleep 1000 & wait"], start_new_session=True)
    try:
        wait_until(lambda: len(processes.members(leader.pid)) == 3, "the session to be whole")
        pids = [process.pid for process in processes.members(leader.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        assert processes.kill_session(leader.pid) == 3
        for pid in pids:
            wait_dead(pid)
    finally:
        leader.kill()
        leader.wait()


def test_shared_memory_is_not_counted_once_per_process() -> None:
    shared = 64 << 20
    script = (
        f"import os, mmap\nm = mmap.mmap(-1, {shared})\nm.write(b'x' * {shared})\n"
        f"[os.fork() for _ in '12']\nsum(m[i] for i in range(0, {shared}, 4096))\ninput()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, start_new_session=True) as it:
        try:
            wait_until(
                lambda: memory.used_bytes(it.pid, at_least=1 << 40) > 4 * shared, "four processes that map 64 MiB each"
            )
            assert memory.used_bytes(it.pid, at_least=0) < 2 * shared
        finally:
            processes.kill_session(it.pid)


@pytest.mark.parametrize(("quantity", "expected"), [("1Gi", 2**30), (None, None), ("much", None), (5, 5)])
def test_a_limit_that_is_none_limits_nothing(quantity: object, expected: int | None) -> None:
    assert memory.limit_bytes(quantity) == expected
