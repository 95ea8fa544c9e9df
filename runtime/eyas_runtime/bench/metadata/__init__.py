"""`eyas bench metadata`: what durable commits and acks cost, and how long a restart takes with a million refs.

Two arms on one disk, taking turns: *ours* (a transaction for each capture group and each ack) and *naive* (the ledger
that comes to mind first, one transaction for each row, reconciled ref by ref). Both sync the disk at every transaction.
Times are seconds, sizes bytes. Peak memory is this process's, measured from the moment before the call.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from eyas_contract.errors import UserError
from eyas_runtime.bench.metadata.job import GROUP, WINDOW
from eyas_runtime.bench.metadata.latencies import bare_syncs, latencies
from eyas_runtime.bench.metadata.measuring import figures_of
from eyas_runtime.bench.metadata.reconciles import reconciles

SAMPLES_MIN: Final = 4 * WINDOW


def benchmark_metadata(
    *, folder: str | Path | None = None, samples: int = 2048, refs: Sequence[int] = (50_000, 200_000, 1_000_000)
) -> dict[str, object]:
    """Latencies of commits and acks over `samples` samples, and reconcile times over each count of `refs`.

    `folder` is where the databases are made (the disk that is measured); None: the system's temporary folder. Returns
    `disk_sync` (the floor), `commit` and `ack` (p50 and p99 of both arms, and the ratio of ours to naive for equally
    many samples) and `reconcile` (seconds and peak bytes a case and a count).
    """
    if samples < SAMPLES_MIN or any(count < SAMPLES_MIN for count in refs):
        raise UserError(f"at least {SAMPLES_MIN} samples and refs are needed for figures that say something")
    with tempfile.TemporaryDirectory(dir=folder, prefix="eyas-bench-") as scratch:
        disk = figures_of(bare_syncs(Path(scratch) / "disk", 256))
        commit, ack = latencies(Path(scratch), samples - samples % WINDOW)
        cases = {str(count): reconciles(Path(scratch), count) for count in refs}
    shape = {"samples": samples, "group": GROUP, "window": WINDOW, "cores": os.cpu_count()}
    return shape | {"disk_sync": disk, "commit": commit, "ack": ack, "reconcile": cases}
