"""Damage to a metadata database, as broken disks and careless people do it."""

import sqlite3
from pathlib import Path
from typing import Final

FORMS: Final = ("header", "schema", "half", "text", "page", "empty", "gone")
_GARBAGE: Final = b"this is not a database at all, " * 200


def damage(path: Path, how: str) -> None:
    """Damage the closed database at `path` in the form `how`; its journal goes, so that nothing is read from there."""
    path.with_name(path.name + "-wal").unlink(missing_ok=True)
    if how == "gone":
        path.unlink()
        return
    raw = bytearray(path.read_bytes())
    if how == "header":
        raw[3] ^= 0xFF
    elif how == "schema":
        raw[100:108] = b"\xff" * 8
    elif how == "half":
        raw = raw[: len(raw) // 2]
    elif how == "text":
        raw = bytearray(_GARBAGE)
    elif how == "page":
        size = int.from_bytes(raw[16:18], "big")
        raw[3 * size : 4 * size] = b"\xa5" * size
    elif how == "empty":
        raw = bytearray()
    path.write_bytes(raw)


def damage_page_by_page(path: Path, connection: sqlite3.Connection) -> None:
    """Overwrite every page but the first under the open `connection`, and let it forget what it has read."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(18)[16:18], "big")
        file.seek(size)
        file.write(b"\xa5" * (path.stat().st_size - size))
    connection.execute("PRAGMA shrink_memory")
