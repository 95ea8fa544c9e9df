"""The durable metadata store: one SQLite file of one job, and everything that speaks SQL.

Each theme of the port has its module; `store` puts them together. The tables are in `schema.sql` and `migrations/`, the
statements in `queries.sql`; `sqlite3` is imported by `database` (and by `bench`, for its naive arm) alone.
"""

from eyas_runtime.metadata.sqlite.store import SQLiteMetadataStore, open_store

__all__ = ["SQLiteMetadataStore", "open_store"]
