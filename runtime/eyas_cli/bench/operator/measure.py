"""The phases of the benchmark, for both arms on the same world, and their figures.

The world is made once, by the operator itself. Then each arm starts on it (start-up), is left alone (rest), and sees
producers die at a steady pace, each in a unit that never failed before, so that no back-off is measured (reaction).
"""

import tempfile
import time
from pathlib import Path
from typing import Any, Final

from eyas_cli.bench.operator.audit import AuditLog, quantile, reactions, requests, writes
from eyas_cli.bench.operator.control_plane import ControlPlane, control_plane, wait_for
from eyas_cli.bench.operator.player import PODS_PER_JOB_MIN, Player
from eyas_cli.bench.operator.services import services
from eyas_cli.bench.operator.subject import Reading, Subject, subject
from eyas_contract.errors import UserError

ARMS: Final = {"ours": "eyas_operator", "naive": "eyas_cli.bench.operator.naive"}
BUILD_SECONDS: Final = 1800.0
STARTUP_SECONDS: Final = 600.0
QUIET_SECONDS: Final = 10.0
"""Without a write, until jobs are at rest."""
ANSWER_SECONDS: Final = 120.0
DEATHS_PER_SECOND: Final = 5.0
GOAL_SECONDS: Final = 1.0
Figures = dict[str, Any]


def benchmark_operator(*, jobs: int, pods: int, deaths: int, seconds: int) -> Figures:
    """Figures of both arms; `ratio` = p99 from a death to the corrective call, ours / naive (goal: p99 <= 1 s).

    `jobs` jobs with `pods` pods in all; `seconds` of rest; `deaths` producers die in each arm. Raises `UserError` for a
    size that cannot be, `Transient` when something does not start or is never answered.
    """
    if jobs < 1 or pods < PODS_PER_JOB_MIN * jobs:
        raise UserError(f"a job has at least {PODS_PER_JOB_MIN} pods: ask for that many, or for fewer jobs")
    pods = pods // jobs * jobs
    with (
        tempfile.TemporaryDirectory(prefix="eyas-bench-operator-") as folder,
        control_plane(Path(folder)) as plane,
        services() as played,
    ):
        player = Player(plane, played)
        try:
            built = build(plane, player, jobs, pods)
            victims = player.producers()
            share = min(deaths, len(victims) // len(ARMS))
            figures: Figures = {"jobs": jobs, "pods": pods, "build": built}
            for turn, (name, module) in enumerate(ARMS.items()):
                mine = victims[turn * share : (turn + 1) * share]
                figures[name] = _arm(plane, player, module, jobs=jobs, victims=mine, seconds=seconds)
        finally:
            player.close()
    ours, naive = figures["ours"], figures["naive"]
    return {
        **figures,
        "ratio": _ratio(ours["reaction"]["p99Seconds"], naive["reaction"]["p99Seconds"]),
        "requestsRatio": _ratio(ours["rest"]["requestsPerJobMinute"], naive["rest"]["requestsPerJobMinute"]),
        "goal": {"reactionP99Seconds": GOAL_SECONDS},
    }


def build(plane: ControlPlane, player: Player, jobs: int, pods: int) -> Figures:
    """All jobs are submitted at once; seconds until the operator has made every pod and each of them runs.

    Returns when all jobs are at rest, and the operator that made them is gone.
    """
    with subject(plane, "builder", ARMS["ours"]) as operator:
        wait_for(operator.ready, "the operator leads", STARTUP_SECONDS)
        began = time.monotonic()
        player.submit(jobs, pods // jobs)

        def whole() -> bool:
            operator.check_alive()
            return player.start_pending() == 0 and player.pods() >= pods

        wait_for(whole, f"{pods} pods exist and run", BUILD_SECONDS, pause_seconds=0.2)
        took, reading = time.monotonic() - began, operator.read()
        figures = {
            "seconds": took,
            "cpuSeconds": reading.cpu_seconds,
            "requests": reading.requests,
            "peakBytes": operator.peak_bytes(),
        }
        settle(plane)
        operator.stop()
    return figures


def settle(plane: ControlPlane) -> None:
    """Wait until the operator has written nothing for longer than jobs go without a look."""
    log = AuditLog(plane.audit_log)

    def quiet() -> bool:
        mark = log.mark()
        time.sleep(QUIET_SECONDS)
        return writes(log.since(mark)) == 0

    wait_for(quiet, "the jobs are at rest", ANSWER_SECONDS + STARTUP_SECONDS)


def _arm(plane: ControlPlane, player: Player, module: str, *, jobs: int, victims: list[str], seconds: int) -> Figures:
    began = time.monotonic()
    with subject(plane, f"arm-{module.rpartition('.')[2]}", module) as operator:
        startup = _startup(operator, began, jobs)
        settle(plane)
        rest = _rest(plane, operator, jobs, seconds)
        reaction = _reaction(plane, player, operator, victims)
        peak = operator.peak_bytes()
        operator.stop()
    return {"startup": startup, "rest": rest, "reaction": reaction, "peakBytes": peak}


def _startup(operator: Subject, began: float, jobs: int) -> Figures:
    """Seconds from the start of the process until it is ready, and until every job had a pass."""
    wait_for(operator.ready, "the operator leads", STARTUP_SECONDS, pause_seconds=0.05)
    ready = time.monotonic() - began
    wait_for(lambda: operator.read().passes >= jobs, "every job was looked at", STARTUP_SECONDS, pause_seconds=0.05)
    reading = operator.read()
    return {
        "readySeconds": ready,
        "allLookedAtSeconds": time.monotonic() - began,
        "requests": reading.requests,
        "cpuSeconds": reading.cpu_seconds,
    }


def _rest(plane: ControlPlane, operator: Subject, jobs: int, seconds: int) -> Figures:
    """Nothing happens to anybody."""
    log = AuditLog(plane.audit_log)
    mark, before, began = log.mark(), operator.read(), time.monotonic()
    time.sleep(seconds)
    after, took = operator.read(), time.monotonic() - began
    job_minutes = jobs * took / 60
    return {
        "seconds": took,
        "requests": after.requests - before.requests,
        "requestsByApiServer": requests(log.since(mark)),
        "requestsPerJobMinute": (after.requests - before.requests) / job_minutes,
        **_work(before, after),
        "cpuShare": (after.cpu_seconds - before.cpu_seconds) / took,
    }


def _work(before: Reading, after: Reading) -> Figures:
    passes, cpu = after.passes - before.passes, after.cpu_seconds - before.cpu_seconds
    return {
        "passes": passes,
        "errors": after.errors - before.errors,
        "cpuSeconds": cpu,
        "cpuSecondsPerPass": _ratio(cpu, passes),
    }


def _reaction(plane: ControlPlane, player: Player, operator: Subject, victims: list[str]) -> Figures:
    """Producers die one after the other, and their successors are started."""
    log = AuditLog(plane.audit_log)
    mark, before, began = log.mark(), operator.read(), time.monotonic()
    for turn, victim in enumerate(victims):
        time.sleep(max(0.0, began + turn / DEATHS_PER_SECOND - time.monotonic()))
        player.crash(victim)
    ends = time.monotonic() + ANSWER_SECONDS
    found = reactions(log.since(mark), victims)
    while len(found) < len(victims) and time.monotonic() < ends:
        operator.check_alive()
        time.sleep(0.2)
        found = reactions(log.since(mark), victims)
    wait_for(lambda: player.start_pending() == 0, "the successors run", ANSWER_SECONDS, pause_seconds=0.2)
    return {
        "deaths": len(victims),
        "unanswered": len(victims) - len(found),
        "p50Seconds": quantile(found.values(), 0.5),
        "p99Seconds": quantile(found.values(), 0.99),
        "maxSeconds": max(found.values(), default=None),
        **_work(before, operator.read()),
    }


def _ratio(ours: float | None, other: float | None) -> float | None:
    return ours / other if ours is not None and other else None
