"""Chooses the benchmark by name and prints its figures."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from eyas_contract.errors import UserError

Figures = dict[str, Any]
STEP_TOKENS: Final = 256


def _store(job: Path | None, volumes: dict[str, Path], seconds: int) -> Figures:
    from eyas_cli.bench.pool import local_pool
    from eyas_runtime.bench.store import benchmark_store

    del job, volumes, seconds
    with local_pool(segment_bytes=2 << 30) as settings:
        return benchmark_store(settings)


def _metadata(job: Path | None, volumes: dict[str, Path], seconds: int) -> Figures:
    from eyas_runtime.bench.metadata import benchmark_metadata

    del job, volumes, seconds
    return benchmark_metadata()


def _step(job: Path | None, volumes: dict[str, Path], seconds: int) -> Figures:
    import torch

    from eyas_runtime.train.eagle3.bench import bench_step

    del job, volumes, seconds
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


def _recovery(job: Path | None, volumes: dict[str, Path], seconds: int) -> Figures:
    from eyas_cli.bench.recovery import benchmark_recovery

    del seconds
    return benchmark_recovery(_needed(job), volumes)


def _goodput(job: Path | None, volumes: dict[str, Path], seconds: int) -> Figures:
    from eyas_cli.bench.goodput import benchmark_goodput

    return benchmark_goodput(_needed(job), volumes, seconds=seconds)


BENCHMARKS: Final[dict[str, Callable[[Path | None, dict[str, Path], int], Figures]]] = {
    "store": _store,
    "metadata": _metadata,
    "recovery": _recovery,
    "goodput": _goodput,
    "step": _step,
}


def run_bench(name: str, *, job: Path | None, volumes: dict[str, Path], seconds: int, as_json: bool) -> None:
    """Run one benchmark and print it. Raises `UserError` for a name that there is not."""
    if name not in BENCHMARKS:
        raise UserError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    figures = BENCHMARKS[name](job, volumes, seconds)
    if as_json:
        print(json.dumps(figures))
    else:
        Console().print_json(data=figures)


def _needed(job: Path | None) -> Path:
    if job is None:
        raise UserError("this benchmark runs a whole job: give --job and its --volume folders, as for eyas local run")
    return job
