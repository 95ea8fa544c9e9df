"""Runs both arms of `eyas bench cluster`, one after the other, and compares them."""

import asyncio
import os
import statistics
from pathlib import Path
from typing import Any, Final

from eyas_cli.bench.cluster.arm import GANG, KILLS, Arm, pace, rounds
from eyas_cli.bench.cluster.ours import our_arm
from eyas_cli.bench.cluster.plain import plain_arm
from eyas_cli.cluster.access import Where, opened
from eyas_contract.errors import UserError
from eyas_operator.api.load import load_yaml
from eyas_operator.settings import Settings

REPEATS: Final = 3
GANG_GOAL_SECONDS: Final = 3.0
JOBSET_GANG_SECONDS: Final = 7.7
"""Median that was measured with JobSet on a cluster of this kind, with a container that only sleeps."""


def benchmark_cluster(job: Path | None) -> dict[str, Any]:
    """Figures of every kill of both arms, medians, and ratios; `ratio` is that of a killed process.

    `job` is a job of three consumer pods with a fake capture, such as `examples/drill.yaml`; it is created in the
    namespace of the kubeconfig's context. Raises `UserError` without one.
    """
    if job is None:
        raise UserError("--job is needed: the job to hurt, for example examples/drill.yaml")
    body = load_yaml(job.read_text(encoding="utf-8"))
    if body["spec"]["consumers"].get("replicas") != GANG:
        raise UserError(f"spec.consumers.replicas: must be {GANG} for this benchmark")
    return asyncio.run(_both(body))


async def _both(body: dict[str, Any]) -> dict[str, Any]:
    spec = body["spec"]
    container = spec["consumers"]["template"]["spec"]["containers"][0]
    async with opened(Where()) as access:
        async with our_arm(access, body) as ours:
            first = await _arm(ours)
        async with plain_arm(
            access,
            image=container.get("image", Settings().runtime_image),
            storage=spec["volumes"]["checkpoints"].get("storageClassName"),
            step_seconds=first["secondsPerStep"],
            every_steps=spec["training"]["checkpoint"]["everySteps"],
        ) as plain:
            second = await _arm(plain)
    return {"ours": first, "plainIndexedJob": second, **compared(first, second), "load": os.getloadavg()}


async def _arm(arm: Arm) -> dict[str, Any]:
    figures: dict[str, Any] = {"secondsPerStep": await pace(arm)}
    for kind in KILLS:
        kills = await rounds(arm, kind, REPEATS)
        figures[kind] = {
            "kills": kills,
            "median": {name: statistics.median(kill[name] for kill in kills) for name in kills[0]},
        }
    return figures


def compared(ours: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """Ours divided by plain, of the medians; a ratio below one is less waiting."""
    ratios = {
        f"{kind}.{name}": ours[kind]["median"][name] / value
        for kind in KILLS
        for name, value in plain[kind]["median"].items()
        if value
    }
    return {
        "ratios": ratios,
        "ratio": ratios["process.nextStepSeconds"],
        "gangRunningSeconds": ours["gang"]["median"]["allRunningSeconds"],
        "gangRunningGoalSeconds": GANG_GOAL_SECONDS,
        "jobSetGangSeconds": JOBSET_GANG_SECONDS,
    }
