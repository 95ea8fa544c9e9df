"""Reads a metadata store whose service is not running: for `eyas audit` and `eyas doctor`.

The file is opened exactly as the service opens it (owned, checked, journal recovered), with the facts that it holds
itself, and closed again; nothing is written but what recovery of the journal writes.
"""

from pathlib import Path

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Corrupt, EyasError, Transient
from eyas_runtime.metadata.port import JobFacts
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from eyas_runtime.metadata.sqlite.database import Database


def stored_facts(path: Path) -> JobFacts:
    """The facts of the job that `path` belongs to. Raises `Corrupt` when it has none, and as `Database` does."""
    database = Database(path)
    try:
        row = database.one("job")
    finally:
        database.close()
    if row is None:
        raise Corrupt(f"{path} holds no job: its service was killed before the first write")
    names = [name for name in JobFacts.__struct_fields__ if name != "allow_restart_from_zero"]
    return msgspec.convert(dict(zip(names, row, strict=True)), JobFacts, strict=False)


def read_audit(path: Path) -> wire.AuditReply:
    """The audit from the ledger alone. Raises as `Database` and `stored_facts` do."""
    store = SQLiteMetadataStore(path, stored_facts(path))
    try:
        return store.audit()
    finally:
        store.close()


def read_metrics(path: Path, after_step: int) -> tuple[wire.StepMetrics, ...]:
    """Metrics of windows > `after_step` from the rows alone. Raises as `Database` and `stored_facts` do."""
    store = SQLiteMetadataStore(path, stored_facts(path))
    try:
        return store.metrics(after_step, -1).steps
    finally:
        store.close()


def inspect(path: Path) -> str:
    """What is wrong with the file, in one sentence; empty when it is sound or in use by its service."""
    try:
        stored_facts(path)
    except Transient:
        return ""
    except EyasError as error:
        return str(error)
    return ""
