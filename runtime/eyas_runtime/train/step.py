"""One window into the weights: agree on what is live, forward and backward, agree again, move the weights.

Two collectives of ours per window in the normal case: before the first gradient every rank learns every verdict that
content alone gives, and after the last one the verdicts of the losses, together with the metrics' numerators and
denominators. The optimizer moves only when a round brought nothing new. Where several ranks share each sample, the
first of them also carries which capture every rank holds, and the window waits until those that share one agree.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic

from eyas_contract import wire
from eyas_contract.errors import UserError
from eyas_runtime.failpoints import hit
from eyas_runtime.train import generations
from eyas_runtime.train.data import WindowData
from eyas_runtime.train.eagle3.config import Normalisation
from eyas_runtime.train.evaluation import Measured
from eyas_runtime.train.group import Group, add_floats, merge_codes
from eyas_runtime.train.heartbeat import Work
from eyas_runtime.train.ports import Code, MicroBatch, S, Trainer
from eyas_runtime.train.window import Share

_DOUBLE_BYTES: Final = 8
_Forward = Callable[[MicroBatch[S], float], tuple[int, ...]]
"""`Trainer.accumulate` or `Trainer.evaluate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowResult:
    """What became of a window."""

    verdicts: tuple[wire.Verdict, ...]
    metrics: dict[str, float]


class WindowStep(Generic[S]):
    """The optimizer step of one window on one rank."""

    def __init__(
        self,
        share: Share,
        data: WindowData[S],
        trainer: Trainer[S],
        group: Group,
        work: Work,
        normalisation: Normalisation,
        *,
        ranks_per_sample: int,
    ) -> None:
        """`ranks_per_sample`: how many ranks next to each other take the same samples."""
        self._share, self._data, self._trainer, self._group, self._work = share, data, trainer, group, work
        self._normalisation: Normalisation = normalisation
        self._shared = ranks_per_sample > 1

    def run(self) -> WindowResult:
        """Train the window. Raises `Closed`, `Fenced`, and `UserError` when training diverged."""
        trainer, step = self._trainer, self._share.training_step
        codes, totals = self._settle(lambda places: trainer.begin(step, places), trainer.accumulate, training=True)
        live, verdicts = self._share.live(codes), self._share.verdicts(codes)
        if not live:
            return WindowResult(verdicts=verdicts, metrics={"live_samples": 0.0})
        moved = trainer.apply(step)
        self._work.tick()
        metrics = trainer.metrics(totals, self._share.denominator(codes, self._normalisation))
        counted = {"tokens": float(sum(ref.num_tokens for ref in live)), "live_samples": float(len(live))}
        return WindowResult(verdicts=verdicts, metrics={**metrics, **moved, **counted})

    def measure(self) -> tuple[tuple[wire.Verdict, ...], Measured]:
        """Evaluate the window: forward only, nothing that a checkpoint holds moves.

        Raises as `run`, but for losses only when weights are not finite: what the same job without evaluation would
        train on from is no divergence, and then each sample without a finite loss has its verdict.
        """
        codes, totals = self._settle(self._trainer.begin_evaluation, self._trainer.evaluate, training=False)
        return self._share.verdicts(codes), Measured(totals=totals, live=self._share.live(codes))

    def _settle(
        self, begin: Callable[[int], None], forward: _Forward[S], *, training: bool
    ) -> tuple[bytes, tuple[float, ...]]:
        """Repeat the window until the ranks agree on what in it is live; the agreed codes and the added totals."""
        codes = self._agree_on_content()
        hit("train.before_step")
        while self._share.live(codes):
            begin(len(codes))
            mine = self._pass(codes, forward)
            merged, totals = self._agree_on_losses(mine)
            hit("train.after_backward")
            if merged == codes:
                return codes, totals
            self._refuse_divergence(merged, training=training)
            codes = merged
        return codes, ()

    def _agree_on_content(self) -> bytes:
        while True:
            self._data.turn()
            codes = self._content()
            if Code.MISSING not in codes:
                self._work.phase = "working"
                return codes
            # Somebody waits for a new capture: nobody's silence is a hang then.
            self._work.phase = "idle"

    def _content(self) -> bytes:
        """One round: all ranks' codes, `MISSING` too where ranks that share a place hold different captures of it."""
        places = len(self._share.entries)
        mine = self._data.codes(places)
        if not self._shared:
            return merge_codes(self._group.all_gather(mine))
        parts = self._group.all_gather(mine + generations.encode(self._data.generations(places)))
        newest, disputed = generations.merge([part[places:] for part in parts])
        self._data.drop_older(newest)
        codes = bytearray(merge_codes([part[:places] for part in parts]))
        for place in disputed:
            codes[place] = Code.MISSING
        return bytes(codes)

    def _pass(self, codes: bytes, forward: _Forward[S]) -> bytes:
        mine, denominator = bytearray(codes), self._share.denominator(codes, self._normalisation)
        last = len(self._share.batches) - 1
        for number, places in enumerate(self._share.batches):
            samples = tuple(self._sample(place, codes) for place in places)
            batch = MicroBatch(places=places, samples=samples, last=number == last)
            for place in forward(batch, denominator):
                mine[place] = Code.LOSS_NOT_FINITE
            self._work.tick()
        return bytes(mine)

    def _sample(self, place: int | None, codes: bytes) -> S | None:
        if place is None or codes[place] or self._share.entries[place].ref is None:
            return None
        return self._data.sample(place)

    def _agree_on_losses(self, mine: bytes) -> tuple[bytes, tuple[float, ...]]:
        totals = self._trainer.totals()
        parts = self._group.all_gather(mine + struct.pack(f"<{len(totals)}d", *totals))
        places = len(mine)
        unpack: Callable[[bytes], tuple[float, ...]] = struct.Struct(f"<{len(totals)}d").unpack
        if len(parts[0]) != places + _DOUBLE_BYTES * len(totals):
            raise ValueError("ranks count different metrics")
        codes = merge_codes([part[:places] for part in parts])
        return codes, add_floats([unpack(part[places:]) for part in parts])

    def _refuse_divergence(self, codes: bytes, *, training: bool) -> None:
        """A loss that is not finite condemns its sample only while the weights are finite and, where they are about to
        move, others fare well."""
        sick = not self._trainer.healthy()
        someone_sick = any(part != b"\x00" for part in self._group.all_gather(bytes([sick])))
        alone = sum(code == Code.LOSS_NOT_FINITE for code in codes) == 1
        if someone_sick or (training and not alone and not self._share.live(codes)):
            raise UserError(
                f"training diverged at step {self._share.training_step}: the loss is not finite; lower "
                "training.learningRate or training.maxGradNorm, or look for damaged inputs"
            )
