"""Blobs as files of a directory that all pods mount: works wherever Mooncake cannot be installed.

One file per object in `objects/`, published through `files` (temporary name, fsync, rename, fsync of the directory), so
a reader sees a whole object or none. Names are minted keys, which are safe file names, opened relative to a directory
descriptor and without following links. The descriptor is dropped on ESTALE and the marker checked anew on reopening, so
a remounted or emptied volume is noticed. No call lists the directory except `list`, `capacity` and the sweeps.
"""

import errno
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from eyas_contract.errors import Conflict, Corrupt, EyasError, NotReadable, Transient, UserError
from eyas_contract.ids import valid_key
from eyas_runtime import files, temporary
from eyas_runtime.features.blobs import marker
from eyas_runtime.features.blobs.buffers import BufferPool
from eyas_runtime.features.blobs.deadline import BoundedCalls, Progress
from eyas_runtime.features.blobs.port import Blob, Capacity, HealthValue, Sink, StoredBlob, check_length, parts_of

T = TypeVar("T")
Entries = list[StoredBlob]
OBJECTS: Final = "objects"
PIECE_BYTES: Final = 4 << 20
"""Bytes read at a time: a piece is digested while the next one is read."""


class _Directory:
    """An open directory, closed when nobody uses it any more.

    After ESTALE one call drops it while others may still be inside: closing at once would let the number be reused
    under them, and they would touch another file.
    """

    def __init__(self, descriptor: int) -> None:
        self.fd: Final = descriptor
        weakref.finalize(self, os.close, descriptor)


class SharedDirBlobStore:
    """`BlobStore` over the directory `path`. Raises what `connect` raises when it is first used, not when made."""

    def __init__(
        self, path: Path, *, token: bytes | None = None, create: bool = True, deadline_seconds: float = 10.0
    ) -> None:
        self._path = path
        self._token = token
        self._create = create
        self._calls = BoundedCalls("shared directory", seconds=deadline_seconds)
        self._pool = BufferPool()
        self._lock = threading.Lock()
        self._directory: _Directory | None = None
        self._auth_required = token is not None

    def connect(self) -> None:
        """Open the directory and check the marker. Raises `Unauthenticated`, `Transient`, `Corrupt`, `UserError`."""

        def work(_progress: Progress) -> None:
            with self._objects():
                pass

        self._bounded("open", work)

    def put(self, key: str, data: Blob) -> None:
        """See the port."""
        key, parts = valid_key(key), parts_of(data)

        def work(_progress: Progress) -> None:
            try:
                with self._objects() as objects:
                    files.publish_bytes_at(objects, key, parts, replace=False)
            except FileExistsError:
                raise Conflict(f"{key} exists already; keys are never reused") from None

        self._bounded(f"put of {key}", work)

    def get(self, key: str, length: int, sink: Sink | None = None) -> memoryview:
        """See the port."""
        check_length(length)
        view = self._pool.lease(length).view
        self.get_into(key, view, sink)
        return view

    def get_into(self, key: str, target: memoryview, sink: Sink | None = None) -> None:
        """See the port."""
        key, view = valid_key(key), target.cast("B")
        check_length(len(view))
        position = 0

        def work(progress: Progress) -> None:
            with self._opened(key) as descriptor:
                size = os.fstat(descriptor).st_size
                if size != len(view):
                    raise NotReadable(f"{key}: {size} bytes are stored, {len(view)} were promised")
                for start in range(0, size, PIECE_BYTES):
                    files.read_into(descriptor, view[start : start + PIECE_BYTES], key)
                    progress(min(start + PIECE_BYTES, size))

        def on_piece(end: int) -> None:
            nonlocal position
            if sink is not None:
                sink(view[position:end])
            position = end

        self._bounded(f"get of {key}", work, on_piece)

    def size(self, key: str) -> int | None:
        """See the port."""
        key = valid_key(key)

        def work(_progress: Progress) -> int | None:
            with suppress(NotReadable), self._opened(key) as descriptor:
                return os.fstat(descriptor).st_size
            return None

        return self._bounded(f"size of {key}", work)

    def exists_many(self, keys: Sequence[str]) -> Sequence[bool]:
        """See the port."""
        return [self.size(key) is not None for key in keys]

    def delete(self, key: str) -> bool:
        """See the port; always True, a reader that has the file open keeps its bytes."""
        key = valid_key(key)

        def work(_progress: Progress) -> None:
            try:
                with self._objects() as objects:
                    files.remove_at(objects, key)
            except IsADirectoryError:
                files.remove_tree(self._path / OBJECTS / key)

        self._bounded(f"delete of {key}", work)
        return True

    def list(self, prefix: str) -> Iterable[StoredBlob]:
        """See the port; lengths come with it."""
        return self._bounded("list", lambda _progress: [item for item in self._scan() if item.key.startswith(prefix)])

    def capacity(self) -> Capacity | None:
        """Bytes of the stored objects, and these plus what the file system has free for this user."""

        def work(_progress: Progress) -> Capacity:
            with self._objects() as objects:
                system = os.statvfs(objects)
            used = sum(item.length or 0 for item in self._scan())
            return Capacity(used + system.f_bavail * system.f_frsize, used)

        return self._bounded("capacity", work)

    def health(self) -> Mapping[str, HealthValue]:
        """See the port."""
        base: dict[str, HealthValue] = {
            "backend": "SharedDirectory",
            "auth_required": self._auth_required,
            "stuck_calls": self._calls.stuck,
        }
        try:
            items = self._bounded("list", lambda _progress: self._scan())
        except EyasError as error:
            return base | {"reachable": False, "reason": str(error)[:200]}
        return base | {
            "reachable": True,
            "objects": len(items),
            "used_bytes": sum(item.length or 0 for item in items),
        }

    def sweep_temporary(self, *, writers_are_gone: bool = False) -> int:
        """See the port; also in the root, where a marker may have been half-written."""

        def work(_progress: Progress) -> int:
            age = -math.inf if writers_are_gone else temporary.FOREIGN_AFTER_SECONDS
            with self._objects() as objects, files.directory(self._path) as root:
                return sum(temporary.sweep(folder, foreign_after_seconds=age) for folder in (objects, root))

        return self._bounded("sweep of temporary files", work)

    def close(self) -> None:
        """See the port."""
        self._calls.close()
        self._pool.close()
        self._forget()

    def _bounded(self, what: str, work: Callable[[Progress], T], on_piece: Progress | None = None) -> T:
        def translated(progress: Progress) -> T:
            with files.translated(f"store directory, {what}"):
                try:
                    return work(progress)
                except OSError as error:
                    # ENOENT for a name we create or list means that the directory itself was replaced.
                    if error.errno in (errno.ESTALE, errno.ENOENT):
                        self._forget()
                        raise Transient(f"the store directory was replaced or remounted during {what}") from error
                    raise

        return self._calls.run(translated, on_piece, what=what)

    @contextmanager
    def _objects(self) -> Iterator[int]:
        """Descriptor of `objects/`, opened and its marker checked if it is not yet; valid inside the block."""
        with self._lock:
            if self._directory is None:
                self._directory = _Directory(self._open_directory())
            directory = self._directory
        yield directory.fd

    def _open_directory(self) -> int:
        try:
            with files.directory(self._path) as root:
                found = marker.read_or_create(root, self._token, create=self._create)
                self._auth_required = found.proof is not None
                marker.admit(found, self._token)
                with suppress(FileExistsError):
                    os.mkdir(OBJECTS, 0o750, dir_fd=root)
                    os.fsync(root)
                # From now on a missing marker means another or an unmounted volume, never "make a new store".
                self._create = False
                return os.open(OBJECTS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        except FileNotFoundError as error:
            raise Transient(f"the store directory {self._path} is not there: is the volume mounted?") from error
        except NotADirectoryError as error:
            raise UserError(f"the store path {self._path} is not a directory; name one in store.path") from error

    def _forget(self) -> None:
        # Without the lock: a stuck call may hold it, and one assignment cannot be seen half done.
        self._directory = None

    @contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        """Descriptor of the object file; anything but a regular file counts as not readable."""
        with self._objects() as objects:
            try:
                descriptor = files.open_regular(objects, key)
            except (FileNotFoundError, Corrupt) as error:
                raise NotReadable(f"{key}: nothing whole is stored ({error})") from error
            try:
                yield descriptor
            except Corrupt as error:
                raise NotReadable(str(error)) from error
            finally:
                os.close(descriptor)

    def _scan(self) -> Entries:
        found = []
        with self._objects() as objects, os.scandir(objects) as entries:
            for entry in entries:
                with suppress(UserError, FileNotFoundError):
                    key = valid_key(entry.name)
                    found.append(StoredBlob(key, entry.stat(follow_symlinks=False).st_size))
        return found
