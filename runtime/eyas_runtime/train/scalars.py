"""TensorBoard scalars of rank 0, written behind the loop's back. Losing them costs a plot, never a step.

An event file is appended to by one incarnation; the next one says from which step on the old events are void, so a
replayed step appears once.
"""

import queue
import sys
import threading
from pathlib import Path
from typing import Final

from eyas_runtime.train.evaluation import PREFIX

PENDING_MAX: Final = 4096
"""Steps that may wait for a slow disk; later ones are dropped."""


class ScalarLog:
    """Writes `add`ed metrics from a thread of its own; TensorBoard is imported there, too."""

    def __init__(self, folder: Path, *, first_step: int) -> None:
        self._folder, self._first_step = folder, first_step
        self._queue: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue(PENDING_MAX)
        self._thread = threading.Thread(target=self._run, name="scalars", daemon=True)
        self._thread.start()

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics of `step`; returns at once."""
        if not self._queue.full():
            self._queue.put((step, metrics))

    def close(self) -> None:
        """Write what waits."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout=10.0)

    def _run(self) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter

            writer = SummaryWriter(str(self._folder), purge_step=self._first_step, flush_secs=10)
            while (item := self._queue.get()) is not None:
                step, metrics = item
                for name, value in metrics.items():
                    writer.add_scalar(tag_of(name), value, step)
            writer.close()
        except (OSError, ImportError) as error:
            sys.stderr.write(f"no TensorBoard scalars from here on: {error}\n")


def tag_of(name: str) -> str:
    """Name of a metric's curve: those of evaluations have a section of their own."""
    return f"eval/{name.removeprefix(PREFIX)}" if name.startswith(PREFIX) else f"train/{name}"
