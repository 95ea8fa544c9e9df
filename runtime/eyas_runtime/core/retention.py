"""What may be deleted: checkpoint directories that are superseded, and objects in the pool that nobody knows.

Both rules name only what is proven useless. A directory of this line is garbage when `keep` newer committed ones exist;
one that was struck or never committed, as soon as a newer commit stands (what a killed save left goes before that, when
the ranks start: it may take the very room that the commit needs). An object is swept when it carries this job's prefix
and a store epoch that is not newer than ours, and is in no row and no live lease at a time *after* the listing.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from eyas_contract.errors import UserError
from eyas_contract.ids import JobUid, ObjectKey, key_prefix, store_epoch_of, valid_key


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCheckpoint:
    """One checkpoint directory as the store knows it."""

    directory: str
    step: int
    store_epoch: int
    state: Literal["listed", "committed", "struck"]
    """listed: seen on disk, its commit unknown here; struck: off the line for ever."""
    best_directory: str = ""
    """The best checkpoint as of this one; empty while nothing was evaluated."""


def garbage_checkpoints(
    recorded: Iterable[RecordedCheckpoint], *, keep: int, durable_step: int, in_use: Collection[str]
) -> tuple[str, ...]:
    """Directories that may be deleted now, oldest first.

    Never one of the newest `keep` (at least one) committed ones at or below `durable_step`, nor one that was the best
    as of one of those (the ranks may go back to any of them), never one that is `in_use`.
    A listed directory above the durable step is left alone: whoever wrote it may be in the middle of it.
    """
    rows = sorted(recorded, key=lambda row: (row.step, row.store_epoch, row.directory))
    line = [row for row in rows if row.state == "committed" and row.step <= durable_step]
    spared = line[-max(keep, 1) :]
    best = {row.best_directory for row in spared}
    oldest_spared = spared[0].step if spared else 0
    named = []
    for row in rows:
        if row.directory in in_use or row.directory in best or row in spared:
            continue
        superseded = row.step < oldest_spared if row.state == "listed" else row.step <= durable_step
        if (row.state == "struck" and spared) or (row.state != "struck" and superseded and len(spared) >= max(keep, 1)):
            named.append(row.directory)
    return tuple(named)


def sweep_candidates(listed: Iterable[str], *, job_uid: JobUid, store_epoch: int) -> tuple[ObjectKey, ...]:
    """Keys of a pool's listing that this service may look at: this job's, of store epochs up to its own.

    Foreign names are skipped, not refused: a pool may be shared.
    """
    mine = []
    for name in listed:
        if not name.startswith(key_prefix(job_uid)):
            continue
        try:
            key = valid_key(name)
        except UserError:
            continue
        if store_epoch_of(key) <= store_epoch:
            mine.append(key)
    return tuple(mine)


def sweepable(candidates: Iterable[ObjectKey], live: Collection[ObjectKey]) -> tuple[ObjectKey, ...]:
    """Candidates that are neither in a row nor in a live lease; `live` must be asked after the listing was made."""
    return tuple(key for key in candidates if key not in live)
