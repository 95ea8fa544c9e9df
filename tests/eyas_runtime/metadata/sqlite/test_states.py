"""The state table against the SQL: every (state, event) pair, in the pure table, in the statements, in the database."""

import re
import sqlite3
from itertools import product
from pathlib import Path

import pytest

from eyas_contract.errors import Bug, Conflict
from eyas_contract.states import SAMPLE_TRANSITIONS, Sample, SampleEvent, after
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from eyas_runtime.metadata.sqlite.schema import QUERIES, SCHEMA
from support.jobs import facts

PAIRS = list(product(Sample, SampleEvent))
LEGAL_MOVES = {(origin, target) for (origin, _), target in SAMPLE_TRANSITIONS.items()}
MOVERS = [name for name, text in QUERIES.items() if re.match(r"UPDATE samples SET state", text)]
COLUMNS = {
    Sample.PENDING: (None, None, None),
    Sample.READY: (1, None, None),
    Sample.LOST: (None, None, None),
    Sample.DEAD: (None, "reason", "rank"),
    Sample.RELEASED: (None, None, None),
}


def _row_of(connection: sqlite3.Connection) -> tuple[object, ...]:
    return tuple(connection.execute("SELECT sequence, state, object, reason, source FROM samples").fetchone())


@pytest.fixture
def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    return connection


@pytest.mark.parametrize(("origin", "target"), list(product(Sample, Sample)), ids=lambda state: state.value)
def test_database_moves_a_sample_only_along_the_table(
    database: sqlite3.Connection, origin: Sample, target: Sample
) -> None:
    database.execute(
        "INSERT INTO samples (sequence, state, object, reason, source) VALUES (0, ?, ?, ?, ?)",
        (origin.value, *COLUMNS[origin]),
    )
    before = _row_of(database)
    change = "UPDATE samples SET state = ?, object = ?, reason = ?, source = ?"
    if (origin, target) in LEGAL_MOVES:
        database.execute(change, (target.value, *COLUMNS[target]))
        assert _row_of(database)[1] == target.value
    else:
        with pytest.raises(sqlite3.IntegrityError, match="illegal transition"):
            database.execute(change, (target.value, *COLUMNS[target]))
        assert _row_of(database) == before


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=lambda word: word.value)
def test_every_event_is_legal_in_both_or_raises_in_both(tmp_path: Path, state: Sample, event: SampleEvent) -> None:
    store = SQLiteMetadataStore(tmp_path / "m.sqlite", facts())
    connection = store._db._connection
    connection.execute(
        "INSERT INTO samples (sequence, state, object, reason, source) VALUES (0, ?, ?, ?, ?)",
        (state.value, *COLUMNS[state]),
    )
    connection.execute("UPDATE tally SET samples = 1 WHERE state = ?", (state.value,))
    before = _row_of(connection)
    statement, values = _statement_of(event)
    store._choose([(0, "why", "rank")])
    if (state, event) in SAMPLE_TRANSITIONS:
        with store._db.transaction():
            assert store._move(event, state, statement, **values) == 1
        target = after(state, event)
        assert _row_of(connection) == (0, target.value, *COLUMNS[target][:1], *_killed(target))
        assert connection.execute("SELECT state FROM tally WHERE samples = 1").fetchall() == [(target.value,)]
    else:
        with pytest.raises(Conflict), store._db.transaction():
            store._move(event, state, statement, **values)
        assert _row_of(connection) == before
    store.close()


def _killed(target: Sample) -> tuple[object, object]:
    return ("why", "rank") if target == Sample.DEAD else (None, None)


def _statement_of(event: SampleEvent) -> tuple[str, dict[str, int | str]]:
    if event == SampleEvent.COMMIT:
        return "make_ready", {"sequence": 0, "generation": 1, "payload_digest": "d", "commit_number": 1}
    if event == SampleEvent.KILL:
        return "kill_chosen", {}
    return "move_chosen", {}


@pytest.mark.parametrize("name", MOVERS)
def test_every_statement_that_moves_samples_is_guarded_by_where_they_come_from(name: str) -> None:
    text = QUERIES[name]
    assert "state = :target" in text
    assert re.search(r"WHERE state = :origin\b", text), "an unguarded move would skip the table"


def test_no_other_statement_writes_a_state_of_samples() -> None:
    heads = {name: text.split("WHERE")[0] for name, text in QUERIES.items()}
    writers = [name for name, head in heads.items() if re.search(r"UPDATE samples\b.*\bstate\s*=\s*[':]", head, re.S)]
    assert sorted(writers) == sorted(MOVERS)
    inserts = [name for name, text in QUERIES.items() if "INTO samples" in text]
    assert sorted(inserts) == ["add_pending_chosen", "add_pending_range", "add_released_range"]


@pytest.mark.parametrize(
    "row",
    [
        (0, "ready", None, None, None),
        (0, "lost", 1, None, None),
        (0, "dead", None, None, None),
        (0, "pending", None, "reason", "rank"),
        (0, "dead", None, "reason", "gossip"),
        (0, "resting", None, None, None),
        (-1, "pending", None, None, None),
    ],
    ids=["ready-without-object", "lost-with-object", "dead-without-source", "alive-with-reason", "unknown-source",
         "unknown-state", "negative"],
)  # fmt: skip
def test_contradictory_row_is_refused_by_a_check(database: sqlite3.Connection, row: tuple[object, ...]) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("INSERT INTO samples (sequence, state, object, reason, source) VALUES (?, ?, ?, ?, ?)", row)
    assert database.execute("SELECT count(*) FROM samples").fetchone() == (0,)


def test_text_in_a_number_column_is_refused(database: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT"):
        database.execute("INSERT INTO windows (step, version) VALUES (1, 'first')")


def test_two_open_incarnations_are_impossible(tmp_path: Path) -> None:
    store = SQLiteMetadataStore(tmp_path / "m.sqlite", facts())
    values = {"attempt": 1, "process": "p", "step": 0, "directory": "", "world_size": 1, "now": 0.0}

    def open_two() -> None:
        with store._db.transaction():
            store._db.run("add_incarnation", incarnation="a", **values)
            store._db.run("add_incarnation", incarnation="b", **values)

    with pytest.raises(Bug, match="UNIQUE"):
        open_two()
    assert store.gang().incarnation is None
    store.close()
