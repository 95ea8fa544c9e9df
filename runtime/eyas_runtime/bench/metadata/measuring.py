"""Seconds and bytes of a call, and the figures that describe many of them."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_PEAK: Final = Path("/proc/self/status")
_RESET: Final = Path("/proc/self/clear_refs")
Figures = dict[str, float]


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds of wall time that the call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measured(call: Callable[[], object]) -> Figures:
    """Seconds of wall and processor time (a busy machine stretches the first), and what the call added at its peak."""
    _RESET.write_text("5")
    before, processor = _peak_bytes(), time.process_time()
    seconds = seconds_of(call)
    return {
        "seconds": seconds,
        "processor_seconds": time.process_time() - processor,
        "peak_bytes": float(_peak_bytes()),
        "added_peak_bytes": float(_peak_bytes() - before),
    }


def _peak_bytes() -> int:
    line = next(line for line in _PEAK.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def figures_of(values: list[float]) -> Figures:
    """Median, 99th percentile, mean and count of seconds."""
    ordered = sorted(values)
    return {
        "p50_seconds": ordered[len(ordered) // 2],
        "p99_seconds": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        "mean_seconds": statistics.mean(ordered),
        "count": float(len(ordered)),
    }
