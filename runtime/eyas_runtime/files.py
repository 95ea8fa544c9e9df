"""The only module that renames or unlinks: how bytes become a file that survives power loss, and how they are read.

A file appears under its name complete or not at all: bytes go to a temporary name in the same directory, are fsynced,
renamed, and the directory is fsynced. Both syncs are needed: without the first a power loss leaves a name with torn
bytes, without the second an acknowledged name that is gone. After a failed fsync the temporary file is thrown away and
never synced again, because the kernel may have dropped the dirty pages and would then answer "done".

Names given here are single path components, opened relative to a directory descriptor without following links, so
nothing from the wire can lead out of the directory. `OSError` passes through; `translated` turns it into our errors.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from eyas_contract.errors import Corrupt, NotReadable, StoreFull, Transient, UserError
from eyas_runtime import digests, temporary
from eyas_runtime.digests import Buffer
from eyas_runtime.failpoints import hit

NAME_BYTES_MAX: Final = 255
PARTS_PER_WRITE: Final = 512
"""Below IOV_MAX (1024 on Linux)."""
READ_BYTES_MAX: Final = 1 << 31
"""Linux moves at most 2 GiB less a page in one read or write; longer files take several calls."""
FILE_MODE: Final = 0o640

_WAIT: Final = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENETDOWN,
     errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNRESET, errno.ENOTCONN, errno.ENFILE,
     errno.EMFILE, errno.ENOMEM}
)  # fmt: skip
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn an `OSError` inside into `NotReadable`, `StoreFull`, `Transient`, or `UserError` (no right to do it)."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotReadable(f"{what}: {error.strerror}") from error
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(f"{what}: {error.strerror}", retry_after_seconds=1.0) from error
        if error.errno in _WAIT:
            raise Transient(f"{what}: {error.strerror}", retry_after_seconds=1.0) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"{what}: {error.strerror}; mount it writable for this user") from error
        raise


def valid_name(name: str) -> str:
    """`name`, if it is one plain path component; raises `UserError` otherwise."""
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > NAME_BYTES_MAX:
        raise UserError(f"{name[:80]!r} is not a plain file name")
    return name


@contextmanager
def directory(path: Path | str) -> Iterator[int]:
    """A descriptor of the directory at `path`, closed on leaving."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def replacing(dir_fd: int, name: str, *, replace: bool = True) -> Iterator[BinaryIO]:
    """A file to write in the block; on leaving it is synced and appears as `name` in `dir_fd`, durably.

    An exception in the block, or while syncing, leaves nothing behind. With `replace=False` an existing `name` raises
    `FileExistsError` and keeps its bytes.
    """
    valid_name(name)
    temporary_name = temporary.name_for(temporary.own_identity())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary_name, flags, FILE_MODE, dir_fd=dir_fd)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        hit("files.before_rename")
        _take_name(dir_fd, temporary_name, name, replace=replace)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary_name, dir_fd=dir_fd)
        raise
    hit("files.after_rename")
    os.fsync(dir_fd)


def _take_name(dir_fd: int, temporary_name: str, name: str, *, replace: bool) -> None:
    if replace:
        os.rename(temporary_name, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        return
    # link(2) is the portable "rename unless it exists"; a crash before the unlink leaves a second name for the sweep.
    os.link(temporary_name, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
    os.unlink(temporary_name, dir_fd=dir_fd)


def publish_bytes_at(dir_fd: int, name: str, data: Buffer | Sequence[Buffer], *, replace: bool = True) -> None:
    """Make `data` the durable content of `name` in the directory `dir_fd`. Errors as in `replacing`."""
    parts = [data] if isinstance(data, bytes | bytearray | memoryview) else list(data)
    with replacing(dir_fd, name, replace=replace) as file:
        write_all(file.fileno(), parts)


def publish_bytes(path: Path, data: Buffer | Sequence[Buffer], *, replace: bool = True) -> None:
    """Make `data` the durable content of `path`, whose directory must exist."""
    with directory(path.parent) as dir_fd:
        publish_bytes_at(dir_fd, path.name, data, replace=replace)


def write_all(descriptor: int, parts: Sequence[Buffer]) -> None:
    """Write the concatenation of `parts` at the descriptor's position, without joining them in memory."""
    pending = [memoryview(part).cast("B") for part in parts if len(part)]
    while pending:
        written = os.writev(descriptor, pending[:PARTS_PER_WRITE])
        while pending and written >= len(pending[0]):
            written -= len(pending.pop(0))
        if written:
            pending[0] = pending[0][written:]


def publish_directory(source: Path, target: Path) -> None:
    """Rename the directory `source` to `target` on the same file system, durably. `target` must not exist.

    The caller has synced what is inside (`sync_file` for each file, then this).
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    sync_directory(source)
    hit("files.before_rename")
    os.rename(source, target)
    hit("files.after_rename")
    sync_directory(target.parent)
    if source.parent != target.parent:
        sync_directory(source.parent)


def sync_file(path: Path) -> None:
    """Make the bytes of the file at `path` durable (its name needs `sync_directory`)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in the directory at `path` durable."""
    with directory(path) as dir_fd:
        os.fsync(dir_fd)


def remove_at(dir_fd: int, name: str) -> bool:
    """Unlink `name` in `dir_fd`; False if it was not there. Not synced: a name that comes back is removed again."""
    hit("files.before_unlink")
    try:
        os.unlink(valid_name(name), dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    hit("files.after_unlink")
    return True


def remove_tree(path: Path) -> None:
    """Delete the directory at `path` with everything inside; links are removed, never followed; absent is no error."""
    hit("files.before_unlink")
    _remove_tree(path)
    hit("files.after_unlink")
    with suppress(FileNotFoundError):
        sync_directory(path.parent)


def _remove_tree(path: Path) -> None:
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _remove_tree(Path(entry.path))
        else:
            with suppress(FileNotFoundError):
                os.unlink(entry.path)
    with suppress(FileNotFoundError):
        os.rmdir(path)


def open_regular(dir_fd: int, name: str) -> int:
    """A read descriptor of the regular file `name`. Raises `Corrupt` for a link, directory or device in its place."""
    try:
        descriptor = os.open(
            valid_name(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd
        )
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise Corrupt(f"{name} is not a regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Corrupt(f"{name} is not a regular file")
    return descriptor


def read_into(descriptor: int, target: memoryview, what: str) -> None:
    """Fill `target` from the descriptor's position. Raises `Corrupt` if the file ends before."""
    position = 0
    while position < len(target):
        count = os.readv(descriptor, [target[position : position + READ_BYTES_MAX]])
        if count == 0:
            raise Corrupt(f"{what} ends after {position} of {len(target)} bytes")
        position += count


def read_verified_at(
    dir_fd: int, name: str, *, digest: str | None = None, length: int | None = None, bytes_max: int
) -> bytearray:
    """The bytes of `name` in `dir_fd`, if they are of `length` and match `digest` (each checked when given).

    Raises `FileNotFoundError`, `OSError`, and `Corrupt` for other bytes, another length, more than `bytes_max`, or
    something that is no regular file.
    """
    descriptor = open_regular(dir_fd, name)
    try:
        size = os.fstat(descriptor).st_size
        if size > bytes_max or (length is not None and size != length):
            expected = f"at most {bytes_max}" if length is None else str(length)
            raise Corrupt(f"{name} has {size} bytes, expected {expected}")
        data = bytearray(size)
        read_into(descriptor, memoryview(data), name)
    finally:
        os.close(descriptor)
    if digest is not None:
        digests.check(digests.digest_of([data], digests.algorithm_of(digest)), digest, name)
    return data


def read_verified(path: Path, *, digest: str | None = None, length: int | None = None, bytes_max: int) -> bytearray:
    """`read_verified_at` for a path."""
    with directory(path.parent) as dir_fd:
        return read_verified_at(dir_fd, path.name, digest=digest, length=length, bytes_max=bytes_max)
