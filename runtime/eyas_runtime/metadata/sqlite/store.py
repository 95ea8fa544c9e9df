"""`SQLiteMetadataStore`: the durable metadata store of one job, one file on one volume, owned by one process."""

from pathlib import Path

from eyas_runtime.metadata.port import JobFacts, MetadataStore
from eyas_runtime.metadata.sqlite.commits import Commits
from eyas_runtime.metadata.sqlite.database import Database
from eyas_runtime.metadata.sqlite.facts import Facts
from eyas_runtime.metadata.sqlite.inputs import Inputs
from eyas_runtime.metadata.sqlite.objects import Objects
from eyas_runtime.metadata.sqlite.recovery import Recovery

FILE_NAME = "metadata.sqlite"


class SQLiteMetadataStore(Inputs, Commits, Recovery, Objects, Facts):
    """Implements `port.MetadataStore`. Every method must be called from the thread that opened it."""

    def __init__(self, path: str | Path, facts: JobFacts) -> None:
        """Open or create the file `path`, whose folder must exist.

        Raises `Transient` while another process owns it or the volume is full, `Damaged` when the file is damaged,
        `UserError` when it is not a store of this job or of a newer version, `Fenced` when its store epoch is newer.
        """
        database = Database(Path(path))
        try:
            super().__init__(database, facts)
        except BaseException:
            database.close()
            raise

    def assert_still_linked(self) -> None:
        """Raise `Corrupt` when the file was deleted or replaced: commits would go to where nobody finds them."""
        self._db.assert_still_linked()

    def close(self) -> None:
        self._db.close()


def open_store(folder: str | Path, facts: JobFacts) -> MetadataStore:
    """The store in `folder` (the mounted metadata volume)."""
    return SQLiteMetadataStore(Path(folder) / FILE_NAME, facts)
