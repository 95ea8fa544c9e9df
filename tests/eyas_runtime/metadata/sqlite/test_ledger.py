"""The numbers that must stay 0 are told at once, are those of the audit, and cost no walk over the rows."""

from pathlib import Path

import pytest

from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from eyas_runtime.metadata.sqlite.schema import QUERIES
from support.jobs import NOW, Actor, facts, prepared


def started(path: Path) -> Actor:
    actor = Actor(SQLiteMetadataStore(path, facts()))
    actor.store.commit_prepared(prepared(20), now=NOW)
    actor.register()
    actor.capture_all()
    actor.reconcile()
    return actor


def database(actor: Actor) -> SQLiteMetadataStore:
    assert isinstance(actor.store, SQLiteMetadataStore)
    return actor.store


def write(actor: Actor, statement: str) -> None:
    store = database(actor)
    with store._db.transaction():
        store._db._connection.execute(statement)


def train(actor: Actor, windows: int) -> None:
    for _ in range(windows):
        actor.train()


def faults(actor: Actor) -> tuple[int | None, int | None]:
    """As the status says, which must be what the audit counts in the rows."""
    status, audit = actor.store.status(), actor.store.audit()
    assert (status.samples_applied_twice, status.samples_missing) == (audit.trained_twice, audit.missing)
    return status.samples_applied_twice, status.samples_missing


def test_a_ledger_that_is_not_cut_is_told_with_the_commit_that_applies_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(QUERIES, "drop_trained_above", "DELETE FROM trained WHERE step > :step AND 0")
    actor = started(tmp_path / "a.sqlite")
    train(actor, 1)
    first = actor.checkpoint()
    train(actor, 2)
    second = actor.checkpoint()
    assert faults(actor) == (0, 0)
    actor.reconcile(first, refused=(second.directory,))
    actor.capture_all()
    train(actor, 1)
    assert actor.store.status().samples_applied_twice == 0
    actor.checkpoint()
    assert faults(actor) == (4, 0)
    train(actor, 1)
    actor.checkpoint()
    assert faults(actor) == (8, 0)


def test_a_commit_that_leaves_a_sample_out_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(QUERIES, "add_trained", f"{QUERIES['add_trained']} AND j.value <> 6")
    actor = started(tmp_path / "a.sqlite")
    train(actor, 1)
    actor.checkpoint()
    assert faults(actor) == (0, 0)
    train(actor, 1)
    actor.checkpoint()
    assert faults(actor) == (0, 1)


def test_a_ledger_that_is_restored_with_a_hole_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(QUERIES, "add_trained_restored", f"{QUERIES['add_trained_restored']} AND sequence <> 6")
    line = started(tmp_path / "a.sqlite")
    train(line, 2)
    newest = line.checkpoint()
    after = Actor(SQLiteMetadataStore(tmp_path / "b.sqlite", facts(store_epoch=2)))
    after.store.commit_prepared(prepared(20), now=NOW)
    after.reconcile(newest)
    assert faults(after) == (0, 1)


def test_what_is_wrong_in_a_file_is_told_from_the_open_and_until_it_is_undone(tmp_path: Path) -> None:
    actor = started(tmp_path / "a.sqlite")
    train(actor, 1)
    first = actor.checkpoint()
    train(actor, 2)
    second = actor.checkpoint()
    write(actor, "INSERT INTO trained (step, sequence, incarnation) VALUES (3, 2, 1)")
    write(actor, "DELETE FROM trained WHERE sequence = 5")
    actor.store.close()
    actor.store = SQLiteMetadataStore(tmp_path / "a.sqlite", facts())
    assert faults(actor) == (1, 1)
    actor.reconcile(first, refused=(second.directory,))
    assert faults(actor) == (0, 0)


def test_replays_are_known_after_a_restart_of_the_service(tmp_path: Path) -> None:
    actor = started(tmp_path / "a.sqlite")
    train(actor, 3)
    actor.reconcile()
    train(actor, 2)
    before = actor.store.status()
    actor.store.close()
    actor.store = SQLiteMetadataStore(tmp_path / "a.sqlite", facts())
    after = actor.store.status()
    assert (before.samples_replayed, before.reached_step) == (after.samples_replayed, after.reached_step) == (8, 3)
    train(actor, 2)
    assert actor.store.status().samples_replayed == 12


def test_a_commit_looks_at_its_own_windows_and_at_no_other_row(tmp_path: Path) -> None:
    actor = started(tmp_path / "a.sqlite")
    train(actor, 1)
    actor.checkpoint()
    train(actor, 1)
    connection, asked = database(actor)._db._connection, list[str]()
    connection.set_trace_callback(asked.append)
    actor.checkpoint()
    actor.store.status()
    connection.set_trace_callback(None)
    counted = [text for text in asked if text.startswith("SELECT") and ("trained" in text or "samples" in text)]
    plans = [row[3] for text in counted for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
    assert any("trained" in plan for plan in plans)
    assert [text for text in counted if "sequence >= 0 " in text] == []
    assert [plan for plan in plans if plan.startswith(("SCAN samples", "SCAN trained"))] == []
