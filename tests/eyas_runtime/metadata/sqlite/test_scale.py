"""Work that must not grow with the rows: counted in statements and query plans, never in seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest

from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from eyas_runtime.metadata.sqlite.bench import fill
from support.jobs import NOW, Actor, facts, prepared

WINDOW = 4


def _store(folder: Path, refs: int) -> Actor:
    store = SQLiteMetadataStore(folder / f"{refs}.sqlite", facts(window_size=WINDOW, allow_restart_from_zero=True))
    store.commit_prepared(prepared(refs), now=NOW)
    fill(store, refs=refs, durable_step=refs // WINDOW // 2)
    actor = Actor(store)
    actor.register()
    return actor


def _statements(actor: Actor, call: Callable[[Actor], object]) -> int:
    """How many statements a call makes the database execute.

    A trigger reports the statement that fired it once more, so the same text again is no new statement; a row loop
    binds other values and is counted.
    """
    store, seen, last = actor.store, 0, ""

    def count(statement: str) -> None:
        nonlocal seen, last
        seen, last = seen + (statement != last), statement

    assert isinstance(store, SQLiteMetadataStore)
    store._db._connection.set_trace_callback(count)
    call(actor)
    store._db._connection.set_trace_callback(None)
    return seen


CALLS: dict[str, Callable[[Actor], object]] = {
    "go back to nothing": lambda actor: actor.reconcile(),
    "release everything": lambda actor: actor.store._release_below(low=0, high=10**6),  # type: ignore[attr-defined]
    "status": lambda actor: actor.store.status(),
    "usage": lambda actor: actor.store.usage(),
    "audit": lambda actor: actor.store.audit(),
    "evict": lambda actor: actor.store.evict(nbytes=10**12, above_sequence=0, now=NOW),
    "room that eviction could make": lambda actor: actor.store.evictable_bytes(0),
    "what is in need": lambda actor: actor.store.groups_in_need(limit=2),
}


@pytest.mark.parametrize("name", CALLS)
def test_number_of_statements_does_not_grow_with_the_rows(name: str, tmp_path: Path) -> None:
    counts = []
    for refs in (400, 8000):
        actor = _store(tmp_path, refs)
        counts.append(_statements(actor, CALLS[name]))
        actor.store.close()
    assert counts[0] == counts[1] > 0, f"{name} runs a statement for every row"


def test_status_of_a_large_store_reads_sums_and_not_rows(tmp_path: Path) -> None:
    actor = _store(tmp_path, 2000)
    plans = []
    assert isinstance(actor.store, SQLiteMetadataStore)
    connection = actor.store._db._connection
    connection.set_trace_callback(plans.append)
    actor.store.status()
    connection.set_trace_callback(None)
    scans = [
        (step[3], text)
        for text in plans
        for step in connection.execute(f"EXPLAIN QUERY PLAN {text}")
        if step[3] in {"SCAN samples", "SCAN objects", "SCAN trained"}
    ]
    assert scans == []
    actor.store.close()


def test_next_group_in_need_is_found_by_index(tmp_path: Path) -> None:
    actor = _store(tmp_path, 2000)
    actor.reconcile()
    assert isinstance(actor.store, SQLiteMetadataStore)
    connection, plans = actor.store._db._connection, []
    connection.set_trace_callback(plans.append)
    assert actor.store.groups_in_need(limit=1)[0].group == 0
    connection.set_trace_callback(None)
    text = next(text for text in plans if "sequence < " in text and "LIMIT 1" in text)
    steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
    assert any("samples_in_need" in step for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps
    actor.store.close()
