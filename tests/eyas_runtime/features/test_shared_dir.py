"""The shared-directory store: crashes, hostile entries, remounts, full disks and credentials."""

import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from eyas_contract.errors import Conflict, Corrupt, NotReadable, StoreFull, Transient, Unauthenticated, UserError
from eyas_contract.ids import JobUid, key_prefix
from eyas_runtime import failpoints, files, temporary
from eyas_runtime.features.blobs import marker
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.features.blobs.shared_dir import SharedDirBlobStore
from eyas_runtime.features.shared_dir import SharedDirFeatureStore
from support.keys import METADATA, new_key, new_task, new_tensors


@pytest.fixture
def blobs(tmp_path: Path) -> SharedDirBlobStore:
    return SharedDirBlobStore(tmp_path)


def object_file(root: Path, key: str) -> Path:
    return root / "objects" / key


def killed_in_put(root: Path, key: str, data: bytes, point: str) -> None:
    pid = os.fork()
    if pid == 0:
        failpoints.arm(f"{point}=kill")
        SharedDirBlobStore(root).put(key, data)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def test_a_writer_killed_before_the_rename_leaves_nothing_readable_and_its_file_is_swept(
    tmp_path: Path, blobs: SharedDirBlobStore, job_uid: JobUid
) -> None:
    # The marker is published by the parent first, so that the kill hits the object.
    blobs.connect()
    key = new_key(job_uid)
    killed_in_put(tmp_path, key, b"data", "files.before_rename")
    assert blobs.size(key) is None
    assert len(list((tmp_path / "objects").iterdir())) == 1
    assert list(blobs.list("eyas.")) == []
    assert blobs.sweep_temporary() == 1
    assert list((tmp_path / "objects").iterdir()) == []


def test_another_hosts_unfinished_file_goes_by_age_or_when_the_job_is_over(
    tmp_path: Path, blobs: SharedDirBlobStore
) -> None:
    blobs.connect()
    there = replace(temporary.own_identity(), host="f" * 16)
    young, old = (tmp_path / "objects" / temporary.name_for(there) for _ in range(2))
    for path in (young, old):
        path.touch()
    os.utime(old, (0, 0))
    assert blobs.sweep_temporary() == 1
    assert young.exists()
    assert blobs.sweep_temporary(writers_are_gone=True) == 1
    assert not young.exists()


def test_a_writer_whose_unfinished_file_was_swept_is_told_to_write_again(
    blobs: SharedDirBlobStore, job_uid: JobUid, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, real = new_key(job_uid), os.link

    def swept(source: str, *arguments: object, src_dir_fd: int, **options: object) -> None:
        os.unlink(source, dir_fd=src_dir_fd)
        real(source, *arguments, src_dir_fd=src_dir_fd, **options)  # type: ignore[arg-type]

    blobs.connect()
    monkeypatch.setattr(os, "link", swept)
    with pytest.raises(Transient):
        blobs.put(key, b"data")
    monkeypatch.undo()
    blobs.put(key, b"data")
    assert bytes(blobs.get(key, 4)) == b"data"


def test_a_writer_killed_after_the_rename_leaves_a_whole_object(
    tmp_path: Path, blobs: SharedDirBlobStore, job_uid: JobUid
) -> None:
    blobs.connect()
    key = new_key(job_uid)
    killed_in_put(tmp_path, key, b"data", "files.after_rename")
    assert bytes(blobs.get(key, 4)) == b"data"
    with pytest.raises(Conflict):
        blobs.put(key, b"data")


def test_of_many_writers_of_one_key_exactly_one_wins(tmp_path: Path, job_uid: JobUid) -> None:
    stores = [SharedDirBlobStore(tmp_path) for _ in range(8)]
    key = new_key(job_uid)
    barrier = threading.Barrier(8)

    def put(number: int) -> int:
        barrier.wait()
        try:
            stores[number].put(key, bytes([number]) * 1000)
        except Conflict:
            return -1
        return number

    with ThreadPoolExecutor(8) as threads:
        [winner] = [number for number in threads.map(put, range(8)) if number >= 0]
    assert bytes(stores[0].get(key, 1000)) == bytes([winner]) * 1000


HOSTILE: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda path, target: path.symlink_to(target),
    "folder": lambda path, target: path.mkdir(),
    "pipe": lambda path, target: os.mkfifo(path),
    "dangling link": lambda path, target: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_link_or_folder_in_place_of_an_object_is_not_readable_and_can_be_deleted(
    tmp_path: Path, blobs: SharedDirBlobStore, job_uid: JobUid, kind: str
) -> None:
    target = tmp_path / "secret"
    target.write_bytes(b"x" * 10)
    key = new_key(job_uid)
    blobs.connect()
    HOSTILE[kind](object_file(tmp_path, key), target)
    with pytest.raises(NotReadable):
        blobs.get(key, 10)
    with pytest.raises(Conflict):
        blobs.put(key, b"y")
    assert blobs.delete(key)
    assert target.read_bytes() == b"x" * 10
    blobs.put(key, b"y")


def test_foreign_files_are_neither_listed_nor_counted(
    tmp_path: Path, blobs: SharedDirBlobStore, job_uid: JobUid
) -> None:
    blobs.put(new_key(job_uid), b"abc")
    (tmp_path / "objects" / "README").write_bytes(b"x" * 1000)
    [only] = blobs.list(key_prefix(job_uid))
    assert only.length == 3
    capacity = blobs.capacity()
    assert capacity is not None
    assert capacity.used_bytes == 3


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, Transient), (errno.ESTALE, Transient)],
)
def test_a_failing_write_is_named_for_what_to_do_and_leaves_nothing(
    tmp_path: Path, blobs: SharedDirBlobStore, job_uid: JobUid, number: int, error: type[Exception]
) -> None:
    key = new_key(job_uid)
    blobs.connect()
    failpoints.arm(f"files.before_rename=error:{errno.errorcode[number]}")
    try:
        with pytest.raises(error):
            blobs.put(key, b"data")
    finally:
        failpoints.disarm()
    assert list((tmp_path / "objects").iterdir()) == []
    blobs.put(key, b"data")
    assert bytes(blobs.get(key, 4)) == b"data"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_failing_read_says_wait_and_the_next_one_works(
    blobs: SharedDirBlobStore, job_uid: JobUid, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    key = new_key(job_uid)
    blobs.put(key, b"data")

    def fail(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "open_regular", fail)
    with pytest.raises(Transient):
        blobs.get(key, 4)
    monkeypatch.undo()
    assert bytes(blobs.get(key, 4)) == b"data"


def test_a_hanging_file_system_ends_at_our_deadline(
    tmp_path: Path, job_uid: JobUid, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = SharedDirBlobStore(tmp_path, deadline_seconds=0.2)
    blobs.connect()
    released = threading.Event()
    real = files.open_regular
    monkeypatch.setattr(files, "open_regular", lambda *arguments: (released.wait(), real(*arguments))[1])
    with pytest.raises(Transient, match="did not return"):
        blobs.get(new_key(job_uid), 4)
    released.set()


def test_a_remounted_empty_volume_is_noticed_and_never_becomes_a_new_store(tmp_path: Path, job_uid: JobUid) -> None:
    root = tmp_path / "volume"
    root.mkdir()
    blobs = SharedDirBlobStore(root)
    blobs.put(new_key(job_uid), b"data")
    shutil.rmtree(root)
    root.mkdir()
    for _ in range(2):
        with pytest.raises(Transient):
            blobs.put(new_key(job_uid), b"data")
    assert list(root.iterdir()) == []


def test_a_directory_that_is_not_there_yet_is_waited_for(tmp_path: Path, job_uid: JobUid) -> None:
    blobs = SharedDirBlobStore(tmp_path / "later")
    with pytest.raises(Transient, match="mounted"):
        blobs.put(new_key(job_uid), b"data")
    (tmp_path / "later").mkdir()
    blobs.put(new_key(job_uid), b"data")


def test_a_client_that_must_not_create_waits_for_the_marker(tmp_path: Path, job_uid: JobUid) -> None:
    late = SharedDirBlobStore(tmp_path, create=False)
    with pytest.raises(Transient, match="mounted"):
        late.connect()
    assert list(tmp_path.iterdir()) == []
    SharedDirBlobStore(tmp_path).connect()
    late.put(new_key(job_uid), b"data")


def test_a_file_in_place_of_the_directory_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"store\.path"):
        SharedDirBlobStore(tmp_path / "file").connect()


def test_many_that_create_a_store_at_once_agree_on_one_marker(tmp_path: Path) -> None:
    stores = [SharedDirBlobStore(tmp_path, token=b"t") for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(SharedDirBlobStore.connect, stores))
    with files.directory(tmp_path) as root:
        assert marker.read(root) is not None


# B9: the credential is checked against what the store says, not against itself.


def every_call(blobs: BlobStore, key: str) -> list[Callable[[], object]]:
    return [
        lambda: blobs.put(key, b"x"),
        lambda: blobs.get(key, 4),
        lambda: blobs.size(key),
        lambda: blobs.exists_many([key]),
        lambda: blobs.delete(key),
        lambda: blobs.list("eyas."),
        blobs.capacity,
        blobs.sweep_temporary,
    ]


@pytest.mark.parametrize("token", [None, b"", b"wrong", b"right "], ids=repr)
def test_a_wrong_or_missing_token_is_refused_by_every_call(
    tmp_path: Path, job_uid: JobUid, token: bytes | None
) -> None:
    owner = SharedDirBlobStore(tmp_path, token=b"right")
    key = new_key(job_uid)
    owner.put(key, b"data")
    stranger = SharedDirBlobStore(tmp_path, token=token)
    for call in every_call(stranger, key):
        with pytest.raises(Unauthenticated):
            call()
    assert stranger.health()["reachable"] is False
    assert bytes(owner.get(key, 4)) == b"data"
    assert owner.health()["auth_required"] is True


def test_a_feature_store_with_the_wrong_token_is_refused_when_it_is_made(tmp_path: Path, job_uid: JobUid) -> None:
    right = SharedDirFeatureStore(tmp_path, job_uid=job_uid, token=b"right")
    ref = right.put(new_tensors(), new_task(job_uid), METADATA)
    for token in (b"wrong", None):
        with pytest.raises(Unauthenticated):
            SharedDirFeatureStore(tmp_path, job_uid=job_uid, token=token)
    SharedDirFeatureStore(tmp_path, job_uid=job_uid, token=b"right").get(ref)


def test_a_token_for_an_open_store_is_refused_because_it_protects_nothing(tmp_path: Path) -> None:
    SharedDirBlobStore(tmp_path).connect()
    with pytest.raises(Unauthenticated, match="without one"):
        SharedDirBlobStore(tmp_path, token=b"t").connect()


def test_the_marker_does_not_give_the_token_away(tmp_path: Path) -> None:
    SharedDirBlobStore(tmp_path / "", token=b"a-very-secret-token").connect()
    raw = (tmp_path / marker.NAME).read_bytes()
    assert b"a-very-secret-token" not in raw
    again = msgspec.json.decode(raw, type=marker.Marker)
    assert again.proof == marker.proof_of(b"a-very-secret-token", again.salt)
    assert again.proof != marker.proof_of(b"a-very-secret-token", "0" * 32)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"salt":"\xe4","proof":null}', b"x" * 10_000,
                                     b'{"schema_version":2,"salt":"a","proof":null}'])  # fmt: skip
def test_a_marker_that_is_none_is_corrupt_and_never_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / marker.NAME).write_bytes(content)
    with pytest.raises(Corrupt):
        SharedDirBlobStore(tmp_path).connect()
    assert (tmp_path / marker.NAME).read_bytes() == content
