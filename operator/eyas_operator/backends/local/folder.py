"""The folder of one run: where everything lies, and how its files are written.

Layout under DIR: job.yaml, identity.json, status.json, processes.json, result.json, lock, `claims/<name>/`,
`secrets/<secret>/<key>`, `objects/`, `pods/<pod>/`, `logs/<role>-<index>.log`. Files are replaced atomically (temporary
name, fsync, rename, fsync of the folder), so a reader never sees half of one and a kill never leaves one.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas_contract.decoding import NOT_JSON
from eyas_contract.errors import UserError


@dataclass(frozen=True, slots=True)
class Workdir:
    """Paths of one run."""

    root: Path

    @property
    def job(self) -> Path:
        return self.root / "job.yaml"

    @property
    def identity(self) -> Path:
        return self.root / "identity.json"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def finalizers(self) -> Path:
        """What must be done before the job may go."""
        return self.root / "finalizers.json"

    @property
    def processes(self) -> Path:
        return self.root / "processes.json"

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def claims(self) -> Path:
        return self.root / "claims"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    @property
    def pods(self) -> Path:
        return self.root / "pods"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def make(self) -> None:
        """Make the folders that are missing. Raises `UserError` when that is not allowed here."""
        try:
            for path in (self.root, self.claims, self.objects, self.pods, self.logs):
                path.mkdir(parents=True, exist_ok=True)
            self.secrets.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder of the run {self.root}: {error.strerror}") from error


def replace_file(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Make `data` the content of `path`, whole or not at all; `durable=False` for what the next run makes anew."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            file.write(data)
            if durable:
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None:
            # A write knows no name, and the user has to know what is full.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    if durable:
        _sync_folder(path.parent)


def replace_json(path: Path, value: object, *, durable: bool = True) -> None:
    """`replace_file` with readable JSON."""
    replace_file(path, json.dumps(value, indent=1).encode() + b"\n", durable=durable)


def create_file(path: Path, data: bytes, *, mode: int) -> bool:
    """Create `path` with `data`, whole or not at all, durably; False when it exists, whose bytes are kept."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    replace_file(temporary, data, mode=mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    _sync_folder(path.parent)
    return True


def read_json(path: Path) -> Any | None:  # noqa: ANN401 - whatever the file holds; the caller checks
    """What the JSON file `path` holds; None when it is not there or is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, *NOT_JSON):
        return None


def remove_tree(path: Path) -> None:
    """Delete a folder of ours and what is in it; absent is no error, links are not followed."""
    with suppress(FileNotFoundError):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)


@contextmanager
def open_append(path: Path) -> Iterator[int]:
    """A descriptor that appends to `path`, for a process to inherit."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
