"""The file under the metadata store: who may open it, what is checked, what a failure leaves behind."""

import errno
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from eyas_contract.errors import Bug, Corrupt, Damaged, EyasError, Fenced, Transient, UserError
from eyas_contract.exits import Exit
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from eyas_runtime.metadata.sqlite.database import Database
from eyas_runtime.metadata.sqlite.schema import MIGRATIONS, QUERIES, SCHEMA, VERSION
from support.damage import FORMS, damage, damage_page_by_page
from support.jobs import NOW, Actor, facts, prepared

DUMP = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"


def _open(path: Path, **changes: object) -> SQLiteMetadataStore:
    return SQLiteMetadataStore(path, facts(**changes))


def _filled(path: Path) -> Actor:
    actor = Actor(_open(path))
    actor.store.commit_prepared(prepared(40), now=NOW)
    actor.register()
    actor.capture_all()
    actor.reconcile()
    actor.train()
    actor.checkpoint()
    return actor


def test_migrations_together_make_the_schema_that_people_read() -> None:
    def dump(*scripts: str) -> list[tuple[str, ...]]:
        connection = sqlite3.connect(":memory:")
        for script in scripts:
            connection.executescript(script)
        rows = connection.execute(DUMP).fetchall()
        connection.close()
        # A migration sets the comma before a column that it adds, and the bracket behind it, where it likes.
        return [tuple(re.sub(r" (?=[,)])", "", " ".join(str(column).split())) for column in row) for row in rows]

    assert dump(*MIGRATIONS) == dump(SCHEMA)


def test_opened_file_has_exactly_the_schema(tmp_path: Path) -> None:
    _open(tmp_path / "m.sqlite").close()
    connection = sqlite3.connect(tmp_path / "m.sqlite")
    fresh = sqlite3.connect(":memory:")
    fresh.executescript(SCHEMA)
    strip = lambda rows: [(kind, name) for kind, name, *_ in rows]  # noqa: E731
    assert strip(connection.execute(DUMP)) == strip(fresh.execute(DUMP))
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    tables = [row[0] for row in connection.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' "
                                                   "AND name NOT LIKE 'sqlite_%' AND strict = 0")]  # fmt: skip
    assert tables == [], "every table is STRICT"
    connection.close()


def test_every_named_statement_compiles_and_is_used(tmp_path: Path) -> None:
    store = _open(tmp_path / "m.sqlite")
    connection = store._db._connection
    for text in QUERIES.values():
        values = dict.fromkeys(re.findall(r":([a-z_0-9]+)", text), 1)
        if not text.startswith("PRAGMA"):
            connection.execute(f"EXPLAIN {text}", values)
    store.close()
    folder = Path(sys.modules["eyas_runtime.metadata.sqlite"].__file__ or "").parent
    sources = "".join(path.read_text() for path in folder.glob("*.py"))
    assert [name for name in QUERIES if f'"{name}"' not in sources] == []


def test_pragmas_are_what_durability_needs(tmp_path: Path) -> None:
    store = _open(tmp_path / "m.sqlite")
    read = {
        name: store._db._connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "locking_mode", "foreign_keys", "mmap_size")
    }
    assert read == {
        "journal_mode": "wal",
        "synchronous": 2,
        "locking_mode": "exclusive",
        "foreign_keys": 1,
        "mmap_size": 0,
    }
    assert not (tmp_path / "m.sqlite-shm").exists(), "an exclusive WAL needs no shared memory"
    store.close()


def test_second_owner_is_told_who_owns_it(tmp_path: Path) -> None:
    first = _open(tmp_path / "m.sqlite")
    with pytest.raises(Transient, match=f"owned by process {os.getpid()}"):
        _open(tmp_path / "m.sqlite")
    first.close()
    _open(tmp_path / "m.sqlite").close()


def test_killed_owner_leaves_the_file_free(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        _filled(tmp_path / "m.sqlite")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    store = _open(tmp_path / "m.sqlite")
    assert store.durable_marker() == (1, 4)
    store.close()


def test_connection_never_crosses_a_fork(tmp_path: Path) -> None:
    store = _open(tmp_path / "m.sqlite")
    child = os.fork()
    if child == 0:
        try:
            store.gang()
        except Bug:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    store.close()


def test_file_of_another_job_is_refused_with_what_differs(tmp_path: Path) -> None:
    _open(tmp_path / "m.sqlite").close()
    with pytest.raises(UserError, match="job_uid is 'testjob0001'"):
        _open(tmp_path / "m.sqlite", job_uid="otherjob01")
    with pytest.raises(UserError, match="window_size is 4, not 8"):
        _open(tmp_path / "m.sqlite", window_size=8)
    _open(tmp_path / "m.sqlite", allow_restart_from_zero=True).close()


def test_service_of_an_older_store_epoch_is_fenced(tmp_path: Path) -> None:
    _open(tmp_path / "m.sqlite", store_epoch=2).close()
    with pytest.raises(Fenced, match="store epoch 1 is over"):
        _open(tmp_path / "m.sqlite", store_epoch=1)
    with pytest.raises(UserError, match="store_epoch"):
        _open(tmp_path / "m.sqlite", store_epoch=3)


def test_foreign_and_newer_files_are_refused_untouched(tmp_path: Path) -> None:
    foreign = sqlite3.connect(tmp_path / "foreign.sqlite")
    foreign.execute("CREATE TABLE notes (text TEXT)")
    foreign.close()
    before = (tmp_path / "foreign.sqlite").read_bytes()
    with pytest.raises(UserError, match="not an Eyas metadata store"):
        _open(tmp_path / "foreign.sqlite")
    assert (tmp_path / "foreign.sqlite").read_bytes() == before
    _open(tmp_path / "m.sqlite").close()
    newer = sqlite3.connect(tmp_path / "m.sqlite")
    newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.close()
    with pytest.raises(UserError, match="newer version of Eyas"):
        _open(tmp_path / "m.sqlite")


def test_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must exist and be writable"):
        _open(tmp_path / "nowhere" / "m.sqlite")


@pytest.mark.parametrize("how", FORMS)
def test_damaged_file_is_said_to_be_damaged_and_stays_as_it_is(tmp_path: Path, how: str) -> None:
    path = tmp_path / "m.sqlite"
    _filled(path).store.close()
    damage(path, how)
    before = path.read_bytes() if path.exists() else None
    for _ in range(2):
        with pytest.raises(Damaged, match=r"m\.sqlite is damaged \(") as caught:
            _open(path)
    assert caught.value.exit_code == Exit.DAMAGED
    assert (path.read_bytes() if path.exists() else None) == before


def test_the_sentence_names_the_file_itself_and_no_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()
    (tmp_path / "pod").symlink_to(tmp_path / "claim")
    _open(tmp_path / "pod" / "m.sqlite").close()
    damage(tmp_path / "claim" / "m.sqlite", "text")
    with pytest.raises(Damaged, match=re.escape(str(tmp_path / "claim" / "m.sqlite"))):
        _open(tmp_path / "pod" / "m.sqlite")


def test_damage_that_is_met_at_work_is_damage(tmp_path: Path) -> None:
    store = _open(tmp_path / "m.sqlite")
    actor = Actor(store)
    actor.store.commit_prepared(prepared(2000), now=NOW)
    actor.register()
    actor.capture_all()
    damage_page_by_page(tmp_path / "m.sqlite", store._db._connection)
    with pytest.raises(Damaged, match=r"m\.sqlite is damaged"):
        list(store.all_committed_ids())
    with pytest.raises(Bug, match="start the process again"):
        store.gang()


def test_tables_that_went_with_the_journal_are_damage_and_no_new_beginning(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        _open(tmp_path / "m.sqlite")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (tmp_path / "m.sqlite-wal").unlink()
    with pytest.raises(Damaged, match="no table any more"):
        _open(tmp_path / "m.sqlite")


def test_a_file_that_was_never_finished_is_a_new_beginning(tmp_path: Path) -> None:
    (tmp_path / "m.sqlite").touch()
    _open(tmp_path / "m.sqlite").close()


@pytest.mark.parametrize(
    ("code", "klass"),
    [
        (sqlite3.SQLITE_CORRUPT, Damaged),
        (sqlite3.SQLITE_CORRUPT_INDEX, Damaged),
        (sqlite3.SQLITE_NOTADB, Damaged),
        (sqlite3.SQLITE_FULL, Transient),
        (sqlite3.SQLITE_BUSY, Transient),
        (sqlite3.SQLITE_LOCKED, Transient),
        (sqlite3.SQLITE_IOERR_READ, Bug),
        (sqlite3.SQLITE_IOERR_FSYNC, Bug),
        (sqlite3.SQLITE_IOERR_SHORT_READ, Bug),
        (sqlite3.SQLITE_IOERR_CORRUPTFS, Bug),
        (sqlite3.SQLITE_READONLY, Bug),
        (sqlite3.SQLITE_PERM, Bug),
        (sqlite3.SQLITE_NOMEM, Bug),
        (sqlite3.SQLITE_CANTOPEN, UserError),
    ],
)
def test_only_bytes_that_are_no_database_are_damage(tmp_path: Path, code: int, klass: type[EyasError]) -> None:
    database = Database(tmp_path / "d.sqlite")
    error = sqlite3.OperationalError("said by SQLite")
    error.sqlite_errorcode = code
    translated = database._translated(error)
    assert type(translated) is klass
    assert (getattr(translated, "exit_code", None) == Exit.DAMAGED) == (klass is Damaged)
    database.close()


def test_a_full_volume_at_the_first_start_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def full(path: Path, *arguments: int) -> int:
        if str(path).endswith(".made"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        with pytest.raises(Transient, match="the volume is full"):
            _open(tmp_path / "m.sqlite")
    _open(tmp_path / "m.sqlite").close()


def test_another_programs_database_in_the_place_of_ours_is_the_users_error(tmp_path: Path) -> None:
    _open(tmp_path / "m.sqlite").close()
    (tmp_path / "m.sqlite").unlink()
    foreign = sqlite3.connect(tmp_path / "m.sqlite")
    foreign.execute("CREATE TABLE notes (text TEXT)")
    foreign.close()
    with pytest.raises(UserError, match="not an Eyas metadata store"):
        _open(tmp_path / "m.sqlite")


def test_directory_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.sqlite").mkdir()
    with pytest.raises(UserError, match="cannot be opened"):
        _open(tmp_path / "m.sqlite")


def test_unlinked_file_is_noticed(tmp_path: Path) -> None:
    store = _open(tmp_path / "m.sqlite")
    store.assert_still_linked()
    shutil.copy(tmp_path / "m.sqlite", tmp_path / "copy")
    (tmp_path / "m.sqlite").unlink()
    with pytest.raises(Corrupt, match="deleted or replaced"):
        store.assert_still_linked()
    (tmp_path / "copy").rename(tmp_path / "m.sqlite")
    with pytest.raises(Corrupt, match="deleted or replaced"):
        store.assert_still_linked()
    store.close()


def test_full_disk_is_transient_and_nothing_is_half_written(tmp_path: Path) -> None:
    actor = Actor(_open(tmp_path / "m.sqlite"))
    actor.store.commit_prepared(prepared(400), now=NOW)
    actor.register()
    assert isinstance(actor.store, SQLiteMetadataStore)
    connection = actor.store._db._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 8}")
    with pytest.raises(Transient, match="the volume is full"):
        actor.capture_all()
    ready = actor.store.status().samples_ready
    assert 0 < ready < 400
    assert ready % 3 == 0, "a commit of three samples is whole or not there"
    assert actor.store.status().samples_committed == actor.store.usage().resident_objects == ready
    with pytest.raises(Transient, match="the volume is full"):
        actor.capture_all()
    connection.execute("PRAGMA max_page_count = 1000000")
    actor.store.end_leases([live.lease_id for live in actor.store.live_leases()], reason="expired", now=NOW)
    actor.capture_all()
    assert actor.store.status().samples_ready == 400
    actor.store.close()


def test_failed_transaction_leaves_no_trace_in_the_next(tmp_path: Path) -> None:
    database = Database(tmp_path / "d.sqlite")
    with database.transaction():
        for name in ("add_progress", "add_tally"):
            database.run(name)

    def fail_half_way() -> None:
        with database.transaction():
            database.run("set_durable_step", step=9)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    with database.transaction():
        database.run("set_frontier", group=3)
    row = database.one("progress")
    assert row is not None
    assert (row[1], row[2]) == (0, 3)
    database.close()


def test_check_that_fails_is_a_bug_and_rolls_back(tmp_path: Path) -> None:
    store = _open(tmp_path / "m.sqlite")
    with pytest.raises(Bug, match="CHECK"), store._db.transaction():
        store._db.run("set_durable_step", step=-1)
    assert store.durable_marker() == (0, 0)
    store.close()


def test_closed_store_says_so_and_closes_twice(tmp_path: Path) -> None:
    store = _open(tmp_path / "m.sqlite")
    store.close()
    store.close()
    with pytest.raises(Bug, match="closed"):
        store.gang()


_LIMITED = """
import resource, signal, sys
sys.path.insert(0, "tests")
from pathlib import Path
from eyas_contract.errors import EyasError
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from support.jobs import NOW, Actor, facts, prepared
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
actor = Actor(SQLiteMetadataStore(Path(sys.argv[1]), facts()))
actor.store.commit_prepared(prepared(400), now=NOW)
actor.register()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, resource.RLIM_INFINITY))
try:
    actor.capture_all()
except EyasError as error:
    print(type(error).__name__, actor.committed, flush=True)
try:
    actor.store.gang()
except EyasError as error:
    print(type(error).__name__)
"""


def test_after_a_write_error_the_process_must_go_and_the_file_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(path)], check=True, capture_output=True, text=True, timeout=60
    )
    first = done.stdout.split()[0]
    assert first in {"Bug", "Transient"}, done.stdout
    if first == "Bug":
        assert done.stdout.split()[-1] == "Bug", "an input/output error poisons the connection"
    store = _open(path)
    status = store.status()
    assert status.samples_ready == status.samples_committed == store.usage().resident_objects > 0
    store.close()
