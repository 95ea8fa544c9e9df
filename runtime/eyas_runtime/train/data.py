"""Samples of this rank, ahead of time: fetched, verified and judged by threads, and captured again where lost.

This window's samples come first, then those of the next one that are ready already. A sample whose bytes are gone or
do not match their digest is reported lost and asked for again until its new capture is there; the wait is cut into
short turns, so that no rank ever sits in a collective for longer than one of them.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Final, Generic

from eyas_contract import wire
from eyas_contract.errors import Corrupt, NotReadable, Transient
from eyas_contract.refs import SampleRef
from eyas_runtime.train.generations import NOT_MINE
from eyas_runtime.train.heartbeat import Work
from eyas_runtime.train.ports import Code, FeatureSource, S, Trainer
from eyas_runtime.train.window import Share

FETCH_THREADS: Final = 4
"""Reads in flight on one rank: enough to hide one store round trip behind another."""
TURN_SECONDS: Final = 5.0
"""Longest wait before the ranks tell each other again that they are alive."""
AGAIN_SECONDS: Final = 0.2
Fetched = tuple[S, Code]


class WindowData(Generic[S]):
    """Fetches for one rank. Not thread-safe itself; its threads only call the source's `get` and `inspect`."""

    def __init__(self, source: FeatureSource[S], trainer: Trainer[S], work: Work) -> None:
        self._source, self._trainer, self._work = source, trainer, work
        self._pool = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
        self._pending: dict[SampleRef, Future[Fetched[S]]] = {}
        self._stop = threading.Event()
        self._share: Share | None = None
        self._refs: dict[int, SampleRef] = {}
        self._lost: set[int] = set()
        self._reports: list[wire.LostSample] = []
        self._ready: dict[int, Fetched[S]] = {}

    def start(self, share: Share, ahead: Sequence[SampleRef]) -> None:
        """Take up a window, then `ahead`: refs of the next one. What was fetched for neither is dropped."""
        self._share, self._refs = share, share.mine()
        self._lost, self._reports, self._ready = set(), [], {}
        wanted = dict.fromkeys([*self._refs.values(), *ahead])
        for ref in [ref for ref in self._pending if ref not in wanted]:
            self._pending.pop(ref).cancel()
        for ref in wanted:
            self._submit(ref)

    def turn(self, seconds: float = TURN_SECONDS) -> bool:
        """Wait up to `seconds` for this rank's samples; True when all are there. Raises `Closed`, `Fenced`."""
        deadline = time.monotonic() + seconds
        while len(self._ready) < len(self._refs):
            self._collect(deadline)
            if self._lost:
                self._work.phase = "idle"
                self._recover(max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                break
        return len(self._ready) == len(self._refs)

    def codes(self, places: int) -> bytes:
        """One byte per place of the window: this rank's verdicts, `MISSING` for what it waits for, else 0."""
        codes = bytearray(places)
        for place in self._refs:
            codes[place] = self._ready[place][1] if place in self._ready else Code.MISSING
        return bytes(codes)

    def generations(self, places: int) -> list[int]:
        """Of each place of the window: the generation of what this rank holds or waits for, else `NOT_MINE`."""
        held = [NOT_MINE] * places
        for place, ref in self._refs.items():
            held[place] = ref.generation
        return held

    def drop_older(self, newest: Sequence[int]) -> None:
        """Let go of captures older than `newest`, one generation a place: the next turn asks for those anew."""
        for place, ref in self._refs.items():
            if ref.generation >= newest[place] or place in self._lost:
                continue
            # A read that is still under way would bring the old capture.
            future = self._pending.pop(ref, None)
            if future is not None:
                future.cancel()
            self._ready.pop(place, None)
            self._lost.add(place)

    def sample(self, place: int) -> S:
        """The sample at `place`, which must be one of this rank's live ones."""
        return self._ready[place][0]

    def close(self) -> None:
        """Stop the threads; fetches under way are abandoned."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, ref: SampleRef) -> None:
        if ref not in self._pending:
            self._pending[ref] = self._pool.submit(self._fetch, ref)

    def _fetch(self, ref: SampleRef) -> Fetched[S]:
        while True:
            try:
                sample = self._source.get(ref)
                break
            except Transient as error:
                # The store is away: whether that lasts too long is for the hang lease to judge.
                if self._stop.wait(max(0.05, error.retry_after_seconds)):
                    raise
        code = self._trainer.inspect(ref, sample)
        self._work.tick()
        return sample, code

    def _collect(self, deadline: float) -> None:
        waiting = {
            place: self._pending[ref]
            for place, ref in self._refs.items()
            if place not in self._ready and place not in self._lost
        }
        if waiting:
            # With some lost already, only what is done now is taken: asking for those must not wait.
            seconds = 0.0 if self._lost else max(0.0, deadline - time.monotonic())
            wait(waiting.values(), timeout=seconds, return_when=FIRST_EXCEPTION)
        for place, future in waiting.items():
            if not future.done():
                continue
            ref = self._refs[place]
            del self._pending[ref]
            try:
                self._ready[place] = future.result()
            except (NotReadable, Corrupt) as error:
                self._lost.add(place)
                self._reports.append(
                    wire.LostSample(sequence=ref.sequence, generation=ref.generation, reason=str(error)[:500])
                )

    def _recover(self, seconds: float) -> None:
        try:
            if self._reports:
                self._source.report_lost(self._reports)
                self._reports = []
            self._ask_again(seconds)
        except Transient as error:
            # The metadata service is away: the next turn asks again.
            self._stop.wait(max(AGAIN_SECONDS, error.retry_after_seconds))

    def _ask_again(self, seconds: float) -> None:
        assert self._share is not None  # noqa: S101  lost places exist only inside a window
        by_sequence = {self._refs[place].sequence: place for place in self._lost}
        reply = self._source.current(
            self._share.step, self._share.version, sorted(by_sequence), wait_seconds=min(seconds, TURN_SECONDS)
        )
        for ref in reply.refs:
            place = by_sequence[ref.sequence]
            if ref == self._refs[place]:
                # The service believes in the object that we could not read: look again, but not in a tight loop.
                self._stop.wait(AGAIN_SECONDS)
            self._refs[place] = ref
            self._lost.discard(place)
            self._submit(ref)
        if not self._lost:
            self._work.phase = "working"
