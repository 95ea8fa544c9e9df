"""What only the benchmark of the metadata store needs of SQLite: a million rows at once, and the naive second arm.

The naive arm is the ledger that comes to mind first: one table of JSON refs and one of acked ids, a transaction for
every row, and a reconcile that reads refs one by one. It has the same durability (WAL, `synchronous=FULL`).
"""

import sqlite3
from pathlib import Path
from typing import Final

from eyas_runtime.metadata.sqlite import SQLiteMetadataStore

_FILL: Final = """
INSERT INTO samples (sequence, state, object, payload_digest, commit_number)
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :refs)
SELECT i, CASE WHEN i < :durable_end THEN 'released' ELSE 'ready' END,
  CASE WHEN i < :durable_end THEN NULL ELSE i + 1 END, 'blake3:' || lower(hex(randomblob(32))), i + 1 FROM n;
INSERT INTO objects (generation, key, state, prompt, last_use, length, digest, payload_digest, num_tokens,
  num_supervised, feature_specs, strategy, schema_version, fingerprint)
SELECT object, 'eyas.' || :job_uid || '.e1.g' || object || '.' || lower(hex(randomblob(16))), 'used', NULL, sequence,
  4000000, 'blake3:' || lower(hex(randomblob(32))), payload_digest, 512, 300, :specs, 'eagle3', 1, 'blake3:cpu'
FROM samples WHERE state = 'ready';
INSERT INTO windows (step, version)
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 <= :steps) SELECT i, 1 FROM n;
INSERT INTO trained (step, sequence, incarnation)
SELECT sequence / :window_size + 1, sequence, 1 FROM samples WHERE state = 'released';
UPDATE tally SET samples = (SELECT count(*) FROM samples AS s WHERE s.state = tally.state);
UPDATE progress SET durable_step = :durable_step, frontier_group = :frontier, generation = :refs, commits = :refs;
"""
SPECS: Final = (
    '[{"name":"input_ids","shape":[1,512],"dtype":"int64"},{"name":"loss_mask","shape":[1,512],"dtype":"int64"},'
    '{"name":"hidden_state","shape":[1,512,896],"dtype":"bfloat16"},'
    '{"name":"aux_hidden_state","shape":[1,512,2688],"dtype":"bfloat16"}]'
)
"""Feature specs of the size that a real sample has."""


def fill(store: SQLiteMetadataStore, *, refs: int, durable_step: int) -> None:
    """Make `refs` committed samples, those of windows <= `durable_step` trained and released, in one transaction."""
    facts = store._facts
    values = {
        "refs": refs,
        "durable_step": durable_step,
        "durable_end": durable_step * facts.window_size,
        "steps": durable_step,
        "window_size": facts.window_size,
        "frontier": refs // facts.group_size,
        "job_uid": facts.job_uid,
        "specs": SPECS,
    }
    connection = store._db._connection
    with store._db.transaction():
        for statement in _FILL.split(";\n"):
            if statement.strip():
                connection.execute(statement, values)


class NaiveLedger:
    """The second arm. Every call is one transaction a row."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        for text in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "CREATE TABLE IF NOT EXISTS committed (sample_id TEXT PRIMARY KEY, ref_json TEXT)",
            "CREATE TABLE IF NOT EXISTS acked (sample_id TEXT PRIMARY KEY)",
        ):
            self._connection.execute(text)
        self._connection.commit()

    def commit(self, sample_id: str, ref_json: str) -> None:
        """One ref, one transaction."""
        with self._connection:
            self._connection.execute("INSERT OR IGNORE INTO committed VALUES (?, ?)", (sample_id, ref_json))

    def ack(self, sample_id: str) -> None:
        """One id, one transaction."""
        with self._connection:
            self._connection.execute("INSERT OR IGNORE INTO acked VALUES (?)", (sample_id,))

    def fill(self, refs: int, acked: int, ref_json: str) -> None:
        """`refs` rows at once, the first `acked` of them acked."""
        with self._connection:
            self._connection.executemany(
                "INSERT INTO committed VALUES (?, ?)", ((f"s-{i:012d}", ref_json) for i in range(refs))
            )
            self._connection.executemany("INSERT INTO acked VALUES (?)", ((f"s-{i:012d}",) for i in range(acked)))

    def reconcile(self) -> int:
        """Look at every ref by its id, as a row loop does; returns how many are to be trained again."""
        ids = [row[0] for row in self._connection.execute("SELECT sample_id FROM committed ORDER BY rowid")]
        acked = {row[0] for row in self._connection.execute("SELECT sample_id FROM acked")}
        again = 0
        for sample_id in ids:
            row = self._connection.execute(
                "SELECT ref_json FROM committed WHERE sample_id = ?", (sample_id,)
            ).fetchone()
            again += bool(row) and sample_id not in acked
        return again

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
