"""Chooses the benchmark by name and prints its figures."""

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from eyas_contract.errors import UserError

Figures = dict[str, Any]
STEP_TOKENS: Final = 256
RECOVERY_STEPS: Final = 4000
GOODPUT_STEPS_PER_SECOND: Final = 40
"""More than the small job makes, so that it never ends before the benchmark does."""
GOODPUT_SECONDS: Final = 180
REST_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says; each benchmark takes what concerns it."""

    job: Path | None
    """The job to hurt; None: a small one."""
    volumes: dict[str, Path]
    seconds: int | None
    """Length of each arm; None: the benchmark's own."""
    jobs: int
    pods: int
    deaths: int


def _store(asked: Asked) -> Figures:
    from eyas_cli.bench.pool import local_pool
    from eyas_runtime.bench.store import benchmark_store

    del asked
    with local_pool(segment_bytes=2 << 30) as settings:
        figures: Figures = dict(benchmark_store(settings))
    to_bare = [figures[direction]["ours_to_bare"]["median"] for direction in ("put", "get")]
    return {**figures, "ratio": min(to_bare), "goal": 0.9}


def _metadata(asked: Asked) -> Figures:
    from eyas_runtime.bench.metadata import benchmark_metadata

    del asked
    figures: Figures = dict(benchmark_metadata())
    return {**figures, "ratio": figures["ack"]["ours_to_naive"]}


def _step(asked: Asked) -> Figures:
    import torch

    from eyas_runtime.train.eagle3.bench import bench_step

    del asked
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    figures: Figures = {"threads": torch.get_num_threads(), "tokens": STEP_TOKENS, "goal": 0.7}
    for share in (1.0, 0.6):
        times = bench_step(length=STEP_TOKENS, supervised_share=share)
        figures[f"supervised{share:.0%}"] = {
            "oursSeconds": times.eyas_seconds,
            "plainSeconds": times.plain_seconds,
            "oursTokensPerSecond": STEP_TOKENS / times.eyas_seconds,
            "plainTokensPerSecond": STEP_TOKENS / times.plain_seconds,
            "lossDifference": times.loss_difference,
            "ratio": times.ratio,
        }
    figures["ratio"] = figures["supervised100%"]["ratio"]
    figures["packing"] = _packing()
    return figures


def _packing() -> Figures:
    from eyas_runtime.train.eagle3.bench_packing import bench_packing

    times = bench_packing()
    seconds = {"single": times.single_seconds, "padded": times.padded_seconds, "packed": times.packed_seconds}
    arms = {
        name: {"seconds": taken, "tokensPerSecond": times.tokens / taken, "microBatches": turns, "positions": slots}
        for (name, taken), turns, slots in zip(seconds.items(), times.turns, times.slots, strict=True)
    }
    return {
        "tokens": times.tokens,
        **arms,
        "lossDifference": times.loss_difference,
        "ratio": times.ratio,
        "ratioToSingle": times.packed_seconds / times.single_seconds,
    }


def _recovery(asked: Asked) -> Figures:
    from eyas_cli.bench.recovery import benchmark_recovery

    with _job(asked, steps=RECOVERY_STEPS) as given:
        return benchmark_recovery(*given)


def _goodput(asked: Asked) -> Figures:
    from eyas_cli.bench.goodput import benchmark_goodput

    seconds = asked.seconds or GOODPUT_SECONDS
    with _job(asked, steps=GOODPUT_STEPS_PER_SECOND * seconds) as given:
        return benchmark_goodput(*given, seconds=seconds)


def _cluster(asked: Asked) -> Figures:
    from eyas_cli.bench.cluster.run import benchmark_cluster

    return benchmark_cluster(asked.job)


def _operator(asked: Asked) -> Figures:
    from eyas_cli.bench.operator.measure import benchmark_operator

    seconds = asked.seconds or REST_SECONDS
    return benchmark_operator(jobs=asked.jobs, pods=asked.pods, deaths=asked.deaths, seconds=seconds)


def _job(asked: Asked, *, steps: int) -> contextlib.AbstractContextManager[tuple[Path, dict[str, Path]]]:
    from eyas_cli.bench.small_job import small_job

    return small_job(steps) if asked.job is None else contextlib.nullcontext((asked.job, asked.volumes))


BENCHMARKS: Final[dict[str, Callable[[Asked], Figures]]] = {
    "store": _store,
    "metadata": _metadata,
    "recovery": _recovery,
    "goodput": _goodput,
    "step": _step,
    "cluster": _cluster,
    "operator": _operator,
}


def run_bench(name: str, asked: Asked, *, as_json: bool) -> None:
    """Run one benchmark and print it. Raises `UserError` for a name that there is not."""
    if name not in BENCHMARKS:
        raise UserError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    figures = BENCHMARKS[name](asked)
    if as_json:
        print(json.dumps(figures))
    else:
        Console().print_json(data=figures)
