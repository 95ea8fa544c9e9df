"""Goodput: steps made in a fixed time with one kill a minute, against the same time without."""

import itertools
import time
from pathlib import Path
from typing import Any

from eyas_cli.bench.drill import Drill, drill

KILL_EVERY_SECONDS = 60.0
ROLES = ("consumer", "producer", "metadata", "store-node")


def benchmark_goodput(job: Path, volumes: dict[str, Path], *, seconds: int) -> dict[str, Any]:
    """Steps of both arms after their first step, and `ratio` = disturbed / undisturbed (goal: 0.95)."""
    undisturbed, _ = _arm(job, volumes, seconds, kills=False)
    disturbed, kills = _arm(job, volumes, seconds, kills=True)
    return {
        "seconds": seconds,
        "undisturbedSteps": undisturbed,
        "disturbedSteps": disturbed,
        "kills": kills,
        "ratio": disturbed / undisturbed if undisturbed else 0.0,
        "goal": 0.95,
    }


def _arm(job: Path, volumes: dict[str, Path], seconds: int, *, kills: bool) -> tuple[int, int]:
    with drill(job, volumes) as run:
        started = run.wait_for_step(1)
        killed = 0
        roles = itertools.cycle(ROLES)
        while (now := time.monotonic()) < started + seconds and not run.ended:
            if kills and now >= started + KILL_EVERY_SECONDS * (killed + 0.5):
                run.kill(next(roles))
                killed += 1
            time.sleep(0.2)
        return _steps(run), killed


def _steps(run: Drill) -> int:
    """The acked step at the end; of a job that ended early, all its steps."""
    for _ in range(200):
        status = run.status()
        if status is not None:
            return status.acked_step
        time.sleep(0.1)
    return 0
