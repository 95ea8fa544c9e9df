"""Theme "ledger" of the SQLite store: promise 3 in numbers.

`audit` counts all rows, which takes most of a second with a million of them. The two numbers that must stay 0 are part
of every status and therefore known at any time: they are counted when the file is opened, and from there on a commit
looks at the windows that it adds. Once there is a fault, all rows are counted again at every move.
"""

from dataclasses import dataclass
from typing import Final

from eyas_contract import wire
from eyas_runtime.metadata.port import JobFacts
from eyas_runtime.metadata.sqlite.base import GangRow, SQLiteBase
from eyas_runtime.metadata.sqlite.database import Database


@dataclass(frozen=True, slots=True)
class Faults:
    """Sequence numbers that promise 3 was broken for."""

    twice: int
    """Given weight more than once along the line of checkpoints."""
    missing: int
    """Below the durable step, neither given weight nor dead."""


NONE: Final = Faults(twice=0, missing=0)


class Ledger(SQLiteBase):
    """What the surviving line of checkpoints gave weight to."""

    def __init__(self, database: Database, facts: JobFacts) -> None:
        """Take over an open database and count what is wrong in it."""
        super().__init__(database, facts)
        self._ledger: tuple[int, int, int, int, int] | None = None
        """What `audit` counted last; whatever moves the durable step or the dead below it forgets it."""
        self._faults = self._count_faults()

    def audit(self) -> wire.AuditReply:
        if self._ledger is None:
            self._ledger = self._count_ledger()
        trained, evaluated, twice, missing, dead = self._ledger
        totals = self._db.all("object_totals")
        leases = self._db.one("lease_usage") or (0, 0)
        return wire.AuditReply(
            trained_once=trained,
            evaluated_once=evaluated,
            trained_twice=twice,
            missing=missing,
            dead_lettered=dead,
            resident_objects=sum(row[1] for row in totals),
            resident_bytes=sum(row[2] for row in totals),
            live_leases=leases[0],
        )

    # --- helpers -------------------------------------------------------------------------------------------------

    def _ledger_moved(self, *, clean: bool) -> None:
        """The durable step was set, or dead letters below it. `clean`: nothing that was added is at fault."""
        self._ledger = None
        if not clean or self._faults != NONE:
            self._faults = self._count_faults()

    def _is_clean_between(self, gang: GangRow, durable: int, step: int) -> bool:
        """Whether the windows that a commit adds are without fault; looks at these windows alone."""
        twice = self._db.integer("ordered_twice", number=gang.number, after=durable, step=step)
        return not twice and not self._missing(self._schedule.end_of(durable), self._schedule.end_of(step))

    def _count_faults(self) -> Faults:
        """Over all rows: a third of a second with a million of them."""
        end = self._schedule.end_of(self._progress().durable_step)
        return Faults(twice=self._db.integer("trained_twice"), missing=self._missing(0, end))

    def _missing(self, low: int, high: int) -> int:
        untrained = self._db.integer("untrained_rows", low=low, high=high)
        return untrained + high - low - self._db.integer("rows_in_range", low=low, high=high)

    def _count_ledger(self) -> tuple[int, int, int, int, int]:
        """Trained once, evaluated once, used twice, missing, dead: over all rows, slow with a million of them."""
        end = self._schedule.end_of(self._progress().durable_step)
        trained, evaluated, twice = self._db.one("audit_trained", **self._held_out()) or (0, 0, 0)
        return trained, evaluated, twice, self._missing(0, end), self._db.integer("dead_below", high=end)

    def _held_out(self) -> dict[str, int]:
        """What tells held-out uses in a query."""
        pattern = self._schedule.rounds.pattern
        return {"cycle": pattern.cycle, "offset": pattern.offset, "last": pattern.last}
