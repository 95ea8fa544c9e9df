"""A file appears whole or not at all, is durable when the call returns, and nothing leads out of its directory."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eyas_contract.errors import Corrupt, NotReadable, StoreFull, Transient, UserError
from eyas_runtime import digests, failpoints, files, temporary


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    failpoints.disarm()
    yield
    failpoints.disarm()


@pytest.fixture
def dir_fd(tmp_path: Path) -> Iterator[int]:
    with files.directory(tmp_path) as descriptor:
        yield descriptor


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_published_bytes_are_the_files_content(tmp_path: Path) -> None:
    files.publish_bytes(tmp_path / "a", b"first")
    files.publish_bytes(tmp_path / "a", [b"sec", bytearray(b""), memoryview(b"ond")])
    assert (tmp_path / "a").read_bytes() == b"second"
    assert names(tmp_path) == {"a"}


def test_many_and_large_parts_are_written_completely(tmp_path: Path) -> None:
    parts = [os.urandom(7) for _ in range(3000)] + [os.urandom(5 << 20)]
    files.publish_bytes(tmp_path / "a", parts)
    assert (tmp_path / "a").read_bytes() == b"".join(parts)


def test_without_replace_an_existing_name_keeps_its_bytes(tmp_path: Path) -> None:
    files.publish_bytes(tmp_path / "a", b"first", replace=False)
    with pytest.raises(FileExistsError):
        files.publish_bytes(tmp_path / "a", b"second", replace=False)
    assert (tmp_path / "a").read_bytes() == b"first"
    assert names(tmp_path) == {"a"}


@pytest.mark.parametrize("replace", [True, False])
def test_bytes_are_synced_before_the_name_and_the_directory_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    order: list[str] = []
    real_sync = os.fsync

    def sync(descriptor: int) -> None:
        kind = "directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"
        order.append(f"sync {kind}")
        real_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)

    def noting(real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object, **options: object) -> None:
            order.append("name")
            real(*arguments, **options)

        return call

    monkeypatch.setattr(os, "rename", noting(os.rename))
    monkeypatch.setattr(os, "link", noting(os.link))
    files.publish_bytes(tmp_path / "a", b"x", replace=replace)
    assert order == ["sync file", "name", "sync directory"]


@pytest.mark.parametrize("failing", ["fsync", "writev", "rename"])
def test_a_failing_call_leaves_the_old_bytes_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    files.publish_bytes(tmp_path / "a", b"old")

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="space"):
        files.publish_bytes(tmp_path / "a", b"new")
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == {"a"}


@pytest.mark.parametrize("point", ["files.before_rename", "files.after_rename"])
def test_a_kill_around_the_rename_leaves_old_or_new_bytes_and_the_sweep_clears_the_rest(
    tmp_path: Path, point: str
) -> None:
    files.publish_bytes(tmp_path / "a", b"old")
    pid = os.fork()
    if pid == 0:
        failpoints.arm(f"{point}=kill")
        files.publish_bytes(tmp_path / "a", b"new")
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    before = point == "files.before_rename"
    assert (tmp_path / "a").read_bytes() == (b"old" if before else b"new")
    with files.directory(tmp_path) as dir_fd:
        assert temporary.sweep(dir_fd) == (1 if before else 0)
    assert names(tmp_path) == {"a"}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/etc/passwd", "a\0b", "x" * 256])
def test_a_name_that_is_no_plain_component_is_refused(tmp_path: Path, dir_fd: int, name: str) -> None:
    for call in (
        lambda: files.publish_bytes_at(dir_fd, name, b"x"),
        lambda: files.remove_at(dir_fd, name),
        lambda: files.read_verified_at(dir_fd, name, bytes_max=10),
    ):
        with pytest.raises(UserError):
            call()
    assert names(tmp_path) == set()


def test_what_is_read_must_match_digest_and_length(tmp_path: Path) -> None:
    data = os.urandom(1000)
    path = tmp_path / "a"
    files.publish_bytes(path, data)
    digest = digests.digest_of([data])
    assert files.read_verified(path, digest=digest, length=1000, bytes_max=1000) == data
    for change in (data[:-1], data + b"x", b"", bytes([data[0] ^ 1]) + data[1:], data[:-1] + bytes([data[-1] ^ 1])):
        files.publish_bytes(path, change)
        with pytest.raises(Corrupt):
            files.read_verified(path, digest=digest, bytes_max=2000)
    with pytest.raises(Corrupt):
        files.read_verified(path, length=999, bytes_max=2000)
    with pytest.raises(Corrupt):
        files.read_verified(path, bytes_max=10)
    with pytest.raises(FileNotFoundError):
        files.read_verified(tmp_path / "absent", bytes_max=10)


def test_links_directories_and_pipes_in_place_of_a_file_are_corrupt(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe"):
        with pytest.raises(Corrupt):
            files.read_verified(tmp_path / name, bytes_max=100)


def test_a_link_in_place_of_a_published_name_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "a").symlink_to(tmp_path / "target")
    files.publish_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()


def test_a_directory_is_published_under_a_free_name_only(tmp_path: Path) -> None:
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "f").write_bytes(b"x")
    files.publish_directory(tmp_path / "draft", tmp_path / "final")
    assert (tmp_path / "final" / "f").read_bytes() == b"x"
    (tmp_path / "draft").mkdir()
    with pytest.raises(FileExistsError):
        files.publish_directory(tmp_path / "draft", tmp_path / "final")
    assert names(tmp_path) == {"draft", "final"}


def test_removing_a_tree_follows_no_links(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_bytes(b"x")
    inside = tmp_path / "tree" / "inner"
    inside.mkdir(parents=True)
    (inside / "f").write_bytes(b"x")
    (inside / "link").symlink_to(tmp_path / "outside")
    files.remove_tree(tmp_path / "tree")
    files.remove_tree(tmp_path / "tree")
    assert names(tmp_path) == {"outside"}
    assert names(tmp_path / "outside") == {"precious"}


def test_removing_says_whether_the_name_was_there(tmp_path: Path, dir_fd: int) -> None:
    files.publish_bytes_at(dir_fd, "a", b"x")
    assert files.remove_at(dir_fd, "a") is True
    assert files.remove_at(dir_fd, "a") is False


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, Transient), (errno.ESTALE, Transient),
     (errno.ENOENT, NotReadable), (errno.EACCES, UserError), (errno.EROFS, UserError), (errno.ENOTEMPTY, OSError)],
)  # fmt: skip
def test_operating_system_errors_become_what_the_caller_does_about_them(number: int, expected: type[Exception]) -> None:
    with pytest.raises(expected), files.translated("reading x"):
        raise OSError(number, os.strerror(number))
