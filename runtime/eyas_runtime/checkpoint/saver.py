"""Checkpoints behind the training loop's back: one thread, one save at a time.

The loop hands over a copy of the state and trains on. A failed save is kept and raised where the loop next looks:
after a failed fsync nothing is tried again, because the kernel may have dropped the pages; the ranks start anew.
"""

import queue
import threading
from typing import Final

from eyas_runtime.checkpoint.writer import CheckpointWriter, Save

_STOP: Final = None


class AsyncSaver:
    """Runs `CheckpointWriter.save` in a thread of its own."""

    def __init__(self, writer: CheckpointWriter) -> None:
        self._writer = writer
        self._queue: queue.SimpleQueue[Save | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._failure: BaseException | None = None
        self._committed_step = 0
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a save is going on."""
        return not self._idle.is_set()

    def directory_at(self, step: int) -> str:
        """Name of the directory that a save of `step` will get."""
        return self._writer.directory_at(step)

    @property
    def committed_step(self) -> int:
        """Step of the newest save that the service recorded; 0 while there is none."""
        return self._committed_step

    def check(self) -> None:
        """Raise what the last save raised, if it failed."""
        if self._failure is not None:
            raise self._failure

    def start(self, save: Save) -> None:
        """Begin `save`; first wait for the one before. Raises what that one raised."""
        self.wait()
        self._idle.clear()
        self._queue.put(save)

    def wait(self) -> None:
        """Until no save is going on. Raises what the last one raised."""
        self._idle.wait()
        self.check()

    def close(self) -> None:
        """End the thread when its save is done."""
        self._queue.put(_STOP)
        self._thread.join()

    def _run(self) -> None:
        while (save := self._queue.get()) is not None:
            try:
                self._writer.save(save)
                self._committed_step = save.step
            except BaseException as error:  # noqa: BLE001  the top frame of this loop: handed to the training loop
                self._failure = error
                self._idle.set()
                return
            self._idle.set()
