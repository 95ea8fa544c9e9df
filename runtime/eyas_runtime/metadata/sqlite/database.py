"""The one SQLite connection of a job: opened with care, used from one thread, every change one durable transaction.

Rules. One owner: a lock file plus `locking_mode=EXCLUSIVE`, so that WAL needs no shared memory and no second process
can ever write. `application_id` and `user_version` are looked at before anything else is believed. WAL with
`synchronous=FULL` is read back, because NORMAL loses committed rows on power loss. A transaction that cannot commit is
rolled back; after an input/output error the object refuses everything, because the kernel may have dropped dirty pages.
Statements live in `queries.sql` under names; nothing here or in the callers builds SQL.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from eyas_contract.errors import Bug, Corrupt, Damaged, Transient, UserError
from eyas_runtime.failpoints import hit
from eyas_runtime.metadata.sqlite.ownership import identity, lost_its_content, mark_made, take_lock, was_made
from eyas_runtime.metadata.sqlite.schema import APPLICATION_ID, MIGRATIONS, QUERIES, VERSION

Value = str | bytes | int | float | None
Row = tuple[Any, ...]
"""Columns of a row; STRICT tables and CHECKs say what is in them."""
CACHE_KIB: Final = 64 << 10
"""Page cache; what bounds the memory of a reconcile over a million samples."""
_PRAGMAS: Final[Mapping[str, tuple[str, Value]]] = {
    "locking_mode": ("EXCLUSIVE", "exclusive"),
    "journal_mode": ("WAL", "wal"),
    "synchronous": ("FULL", 2),
    "foreign_keys": ("ON", 1),
    "temp_store": ("MEMORY", 2),
    "mmap_size": ("0", 0),
    "cache_size": (f"-{CACHE_KIB}", -CACHE_KIB),
    "trusted_schema": ("OFF", 0),
}
"""Set at open, in this order, and read back."""
_JOURNAL_BYTES_MAX: Final = 64 << 20


class Database:
    """An open database file. Every method must be called from the thread that opened it."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`. Raises `Transient` while another process owns it, `Damaged` when it is damaged and
        `UserError` when it is not an Eyas metadata store or of a newer version."""
        self.path = path
        self._pid = os.getpid()
        self._broken = ""
        self._lock = take_lock(path.with_name(path.name + ".lock"))
        try:
            if lost_its_content(path):
                raise _damaged(path, "it was made here and has no content any more")
            self._connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
            try:
                self._prepare_connection()
            except BaseException:
                self._connection.close()
                raise
            self._identity = identity(path)
        except sqlite3.Error as error:
            os.close(self._lock)
            raise self._translated(error) from error
        except BaseException:
            os.close(self._lock)
            raise

    def _prepare_connection(self) -> None:
        connection = self._connection
        # Reading this first page is what finds a file that is no database at all, before any pragma writes to it.
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if application_id != APPLICATION_ID and (application_id or tables):
            raise UserError(f"{self.path} is an SQLite database, but not an Eyas metadata store: name another folder")
        for name, (value, expected) in _PRAGMAS.items():
            connection.execute(f"PRAGMA {name} = {value}")
            found = connection.execute(f"PRAGMA {name}").fetchone()[0]
            if found != expected:
                raise UserError(
                    f"{self.path}: PRAGMA {name} stays {found!r} instead of {expected!r} on this file system"
                )
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES_MAX}")
        report = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if report != "ok":
            raise _damaged(self.path, " ".join(report.split()))
        self._migrate()
        mark_made(self.path)
        # Temporary: they live in memory, belong to this connection, and hold the rows that one transaction works on.
        connection.execute("CREATE TEMP TABLE picked (generation INTEGER PRIMARY KEY)")
        connection.execute("CREATE TEMP TABLE chosen (sequence INTEGER PRIMARY KEY, reason TEXT, source TEXT)")

    def _migrate(self) -> None:
        """Bring the file to `VERSION`, one transaction a migration. Raises `UserError` for a newer file."""
        found = self.integer("user_version")
        if found == 0 and was_made(self.path):
            raise _damaged(self.path, "it was made here and has no table any more")
        if found > VERSION:
            raise UserError(
                f"{self.path} was written by a newer version of Eyas (schema {found}, this one knows {VERSION}): "
                "use that version"
            )
        for number in range(found, VERSION):
            with self.transaction():
                if number == 0:
                    self.script(f"PRAGMA application_id = {APPLICATION_ID};")
                self.script(MIGRATIONS[number])
                self.script(f"PRAGMA user_version = {number + 1};")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One `BEGIN IMMEDIATE` ... `COMMIT`: all of it is durable afterwards, or none of it happened."""
        self._assert_usable()
        self._guarded("BEGIN IMMEDIATE")
        try:
            yield
            hit("metadata.before_commit")
            self._guarded("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        hit("metadata.after_commit")

    def run(self, name: str, **values: Value) -> int:
        """Execute the statement `name`; returns the number of rows it changed."""
        return self._execute(name, values).rowcount

    def run_many(self, name: str, rows: Iterable[Mapping[str, Value]]) -> None:
        """Execute the statement `name` once for each row of values, which may be a generator."""
        self._assert_usable()
        try:
            self._connection.executemany(QUERIES[name], rows)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def one(self, name: str, **values: Value) -> Row | None:
        """First row of the query `name`."""
        cursor = self._execute(name, values)
        try:
            row: Row | None = cursor.fetchone()
        except sqlite3.Error as error:
            raise self._translated(error) from error
        return row

    def all(self, name: str, **values: Value) -> list[Row]:
        """All rows of the query `name`; for queries that are bounded by their meaning or by a LIMIT."""
        return list(self.each(name, **values))

    def each(self, name: str, **values: Value) -> Iterator[Row]:
        """Rows of the query `name` one by one, for those that may be long; no transaction may run meanwhile."""
        try:
            yield from self._execute(name, values)
        except sqlite3.Error as error:
            # Damage may be met at any row, not only at the first.
            raise self._translated(error) from error

    def integer(self, name: str, **values: Value) -> int:
        """The single integer that the query `name` answers."""
        row = self.one(name, **values)
        if row is None or not isinstance(row[0], int):
            raise Bug(f"query {name} answered {row!r} instead of an integer")
        return row[0]

    def script(self, text: str) -> None:
        """Execute several statements of the schema, inside the caller's transaction."""
        self._assert_usable()
        for statement in split_statements(text):
            self._guarded(statement)

    def assert_still_linked(self) -> None:
        """Raise `Corrupt` when the file under our path is not the one that was opened.

        SQLite goes on committing to a file that was unlinked; nobody would ever find those commits.
        """
        try:
            found = identity(self.path)
        except FileNotFoundError:
            found = None
        if found != self._identity:
            raise Corrupt(f"{self.path} was deleted or replaced while it was in use: this process must end now")

    def close(self) -> None:
        """Close the file and give up its ownership. Closing twice is harmless."""
        if self._lock < 0:
            return
        self._connection.close()
        os.close(self._lock)
        self._lock = -1

    def _execute(self, name: str, values: Mapping[str, Value]) -> sqlite3.Cursor:
        self._assert_usable()
        try:
            return self._connection.execute(QUERIES[name], values)
        except OverflowError as error:
            # JSON carries integers of any size; a caller's nonsense must not look like a broken store.
            raise UserError("a number in this call is outside the 64 bits that can be stored") from error
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _guarded(self, statement: str) -> None:
        try:
            self._connection.execute(statement)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                self._broken = f"a rollback failed: {error}"

    def _assert_usable(self) -> None:
        if self._lock < 0:
            raise Bug(f"{self.path} is closed")
        if self._broken:
            raise Bug(f"{self.path} is not used any more after {self._broken}; start the process again")
        if os.getpid() != self._pid:
            raise Bug("an SQLite connection never crosses fork()")

    def _translated(self, error: sqlite3.Error) -> Exception:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return Transient(f"no room to write {self.path}: the volume is full; nothing was changed")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self._broken = f"damage was found ({error})"
            return _damaged(self.path, str(error))
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY):
            self._broken = f"an input/output error ({error})"
            return Bug(f"{self.path}: {error}; the process must start again")
        if code == sqlite3.SQLITE_CANTOPEN:
            return UserError(f"{self.path} cannot be opened: its folder must exist and be writable ({error})")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Transient(f"{self.path} is in use by another process")
        return Bug(f"{self.path}: {error}")


def _damaged(path: Path, detail: str) -> Damaged:
    # Without links: a pod's own folder may be gone when somebody looks for the file.
    return Damaged(f"the metadata database {path.resolve()} is damaged ({detail})")


def split_statements(text: str) -> Iterator[str]:
    """The statements of an SQL script, triggers in one piece."""
    pending = ""
    for line in text.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending
