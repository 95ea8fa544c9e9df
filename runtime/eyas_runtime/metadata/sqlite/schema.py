"""Schema, migrations and named statements of the metadata store, as text that ships with the package.

`schema.sql` is what people read and what a new file looks like; a file is made by running the numbered migrations, and
a test proves that both give the same tables. Statements in `queries.sql` begin with a line `-- name: <name>`.
"""

import re
from importlib.resources import files
from typing import Final

from eyas_contract.errors import Bug

APPLICATION_ID: Final = 0x45594153
"""'EYAS', in the file's header."""
_NAME: Final = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


def _text(name: str) -> str:
    return files("eyas_runtime.metadata.sqlite").joinpath(name).read_text("utf-8")


def _queries() -> dict[str, str]:
    parts = _NAME.split(_text("queries.sql"))
    names, bodies = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        raise Bug("queries.sql uses a name twice")
    return dict(zip(names, (body.strip() for body in bodies), strict=True))


def _migrations() -> tuple[str, ...]:
    folder = files("eyas_runtime.metadata.sqlite").joinpath("migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    if names != [f"{number:04d}.sql" for number in range(1, len(names) + 1)]:
        raise Bug(f"migrations must be numbered 0001.sql, 0002.sql, ... and are {names}")
    return tuple(folder.joinpath(name).read_text("utf-8") for name in names)


QUERIES: Final = _queries()
MIGRATIONS: Final = _migrations()
SCHEMA: Final = _text("schema.sql")
VERSION: Final = len(MIGRATIONS)
"""`user_version` of a file that this code understands: the number of migrations."""
