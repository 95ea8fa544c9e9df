"""Runs both arms of `eyas bench cluster`, one after the other, and compares them."""

import asyncio
import os
import statistics
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

from eyas_cli.bench.cluster.arm import GANG, KILLS, pace, rounds
from eyas_cli.bench.cluster.ours import our_arm
from eyas_cli.bench.cluster.plain import PlainArm, plain_arm
from eyas_cli.cluster.access import Access, Where, opened
from eyas_contract.errors import UserError
from eyas_operator.api.load import load_yaml
from eyas_operator.settings import Settings

REPEATS: Final = 3
PLAIN_REPEATS: Final = 1
"""Of each kill, on a Job of its own: each pod that failed doubles the pause, to 320 s after two kills of a gang."""
GANG_GOAL_SECONDS: Final = 3.0
JOBSET_GANG_SECONDS: Final = 7.7
"""Median that was measured with JobSet on a cluster of this kind, with a container that only sleeps."""


def benchmark_cluster(job: Path | None) -> dict[str, Any]:
    """Figures of every kill of both arms, and ratios; `ratio` is that of a killed process.

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
    async with opened(Where()) as access:
        async with our_arm(access, body) as arm:
            seconds = await pace(arm)
            ours = {kind: _figures(await rounds(arm, kind, REPEATS), statistics.median) for kind in KILLS}
        plain = {}
        for kind in KILLS:
            async with _plain_arm(access, body["spec"], seconds) as rival:
                plain[kind] = _figures(await rounds(rival, kind, PLAIN_REPEATS), min)
    return {
        "secondsPerStep": seconds, "ours": ours, "plainIndexedJob": plain, **compared(ours, plain),
        "load": os.getloadavg(),
    }  # fmt: skip


def _plain_arm(access: Access, spec: dict[str, Any], seconds: float) -> AbstractAsyncContextManager[PlainArm]:
    """A new Job: its pauses begin again with it."""
    container = spec["consumers"]["template"]["spec"]["containers"][0]
    return plain_arm(
        access,
        image=container.get("image", Settings().runtime_image),
        storage=spec["volumes"]["checkpoints"].get("storageClassName"),
        step_seconds=seconds,
        every_steps=spec["training"]["checkpoint"]["everySteps"],
    )


def _figures(kills: list[dict[str, Any]], typical: Callable[[list[float]], float]) -> dict[str, Any]:
    return {"kills": kills, "typical": {name: typical([kill[name] for kill in kills]) for name in kills[0]}}


def compared(ours: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """Our medians divided by the best of the plain arm, so that its doubling pauses do not speak for us."""
    ratios = {
        f"{kind}.{name}": ours[kind]["typical"][name] / value
        for kind in KILLS
        for name, value in plain[kind]["typical"].items()
        if value
    }
    return {
        "ratios": ratios,
        "ratio": ratios["process.nextStepSeconds"],
        "gangRunningSeconds": ours["gang"]["typical"]["allRunningSeconds"],
        "gangRunningGoalSeconds": GANG_GOAL_SECONDS,
        "jobSetGangSeconds": JOBSET_GANG_SECONDS,
    }
