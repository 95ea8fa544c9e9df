"""Recovery: seconds from SIGKILL to the next optimizer step, against a plain torchrun restart.

`nextStep` is the first step that is made after the kill, `newStep` the first that had not been made before it: what
lies between them is trained again from the newest checkpoint.

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

UNITS: tuple[tuple[str, str, int | None, bool], ...] = (
    ("rank, warm", "consumer", 1, True),
    ("rank, cold", "consumer", 1, False),
    ("consumer group", "consumer-supervisor", None, True),
    ("metadata service", "metadata", None, True),
    ("producer", "producer", 0, True),
    ("store node", "store-node", None, True),
    ("store master", "store-master", None, True),
)
"""Name, role, index, and whether the processes that wait to replace ranks are there when it is killed."""
PLAIN_REPEATS = 3
FIRST_STEP = 2
GAP_STEPS = 3


def benchmark_recovery(job: Path, volumes: dict[str, Path]) -> dict[str, Any]:
    """Seconds of every unit, of the plain restart (median), and `ratio` = warm rank / plain (goal: 1/3)."""
    seconds: dict[str, dict[str, float] | None] = {}
    with drill(job, volumes) as run:
        step = FIRST_STEP
        for name, role, index, warm in UNITS:
            run.wait_for_step(step)
            try:
                run.wait_for_warm_spares("consumer")
                if not warm:
                    run.kill("consumer-spare")
                seconds[name], step = _killed(run, role, index)
            except (Transient, ValueError):
                seconds[name] = None  # The job ended, or it has no such unit.
        run.stop()
        plain = [_plain(run.workdir) for _ in range(PLAIN_REPEATS)]
    restart = statistics.median(plain)
    rank = seconds["rank, warm"]
    return {
        "seconds": seconds,
        "plainTorchrunRestartSeconds": restart,
        "ratio": rank["nextStep"] / restart if rank is not None else None,
        "goal": 1 / 3,
    }


def _killed(run: Drill, role: str, index: int | None) -> tuple[dict[str, float], int]:
    """Seconds until the two steps, and the step to wait for before the next kill."""
    before = run.wait_for_status()
    killed = run.kill(role, index=index)
    following = run.wait_for_next_step(before, gang=role.startswith("consumer"))
    new = run.wait_for_step(before.acked_step + 1)
    return {"nextStep": following - killed, "newStep": new - killed}, before.acked_step + GAP_STEPS


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
