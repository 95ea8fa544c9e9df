"""Recovery: seconds from SIGKILL to the next new optimizer step, against a plain torchrun restart.

The plain arm starts `torch.distributed.run` with as many ranks, imports what a trainer imports, joins a gloo group,
loads the same checkpoint, and makes no step: it is what any restart of that kind must cost at least.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from eyas_cli.bench.drill import Drill, drill
from eyas_contract.errors import Transient

UNITS: tuple[tuple[str, str, int | None], ...] = (
    ("rank", "consumer", 1),
    ("consumer group", "consumer-supervisor", None),
    ("metadata service", "metadata", None),
    ("producer", "producer", 0),
    ("store node", "store-node", None),
    ("store master", "store-master", None),
)
PLAIN_REPEATS = 3


def benchmark_recovery(job: Path, volumes: dict[str, Path]) -> dict[str, Any]:
    """Seconds of every unit, of the plain restart (median), and `ratio` = killed rank / plain (goal: 1/3)."""
    seconds: dict[str, float | None] = {}
    with drill(job, volumes) as run:
        step = 2
        for name, role, index in UNITS:
            run.wait_for_step(step)
            try:
                seconds[name], step = _killed(run, role, index)
            except (Transient, ValueError):
                seconds[name] = None  # The job ended, or it has no such unit.
        plain = [_plain(run.workdir) for _ in range(PLAIN_REPEATS)]
    restart = statistics.median(plain)
    rank = seconds["rank"]
    return {
        "seconds": seconds,
        "plainTorchrunRestartSeconds": restart,
        "ratio": rank / restart if rank is not None else None,
        "goal": 1 / 3,
    }


def _killed(run: Drill, role: str, index: int | None) -> tuple[float, int]:
    """Seconds until a step that had not been made before the kill, and a step some way beyond it."""
    status = run.status()
    before = status.acked_step if status else 0
    killed = run.kill(role, index=index)
    recovered = run.wait_for_step(before + 1)
    return recovered - killed, before + 3


def _plain(workdir: Path) -> float:
    """One restart as torchrun does it; seconds until every rank holds the checkpoint."""
    started = time.monotonic()
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(  # noqa: S603 our own module
        [sys.executable, *command, "eyas_cli.bench.plain_restart", str(workdir)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise Transient(f"the plain restart failed: {done.stderr.strip().splitlines()[-1:]}")
    return time.monotonic() - started
