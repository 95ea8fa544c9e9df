"""The training loop of one rank: orders in, windows into the weights, acks and checkpoints out.

The same code runs under every trainer, group and source (`ports`). Its rules:

- Only rank 0 asks for orders; all ranks act on the same bytes.
- Nothing waits inside a collective for longer than a turn: ranks that wait for an order or for a new capture keep
  telling each other so.
- What the ranks agree on (verdicts) is agreed before the optimizer moves; a sample whose loss is not finite gets a
  verdict, and the window is done again without it.
- A window with no live sample advances the step and leaves weights and optimizer alone.
- A window of held-out samples is measured and moves nothing; what it says is kept in `evaluation` and in checkpoints.
- Checkpoints are copied at a boundary and written behind the loop's back; only the last one is waited for.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Bug
from eyas_contract.exits import Exit
from eyas_contract.ids import Incarnation
from eyas_runtime.checkpoint.saver import AsyncSaver
from eyas_runtime.checkpoint.writer import Save
from eyas_runtime.core.rounds import Part
from eyas_runtime.core.sequence import Schedule
from eyas_runtime.failpoints import hit
from eyas_runtime.memory import FreedMemory
from eyas_runtime.train.data import TURN_SECONDS, WindowData
from eyas_runtime.train.eagle3.config import Normalisation
from eyas_runtime.train.evaluation import PREFIX, Evaluations
from eyas_runtime.train.group import Group
from eyas_runtime.train.heartbeat import Work
from eyas_runtime.train.ports import FeatureSource, OrderSource, S, Trainer
from eyas_runtime.train.step import WindowResult, WindowStep
from eyas_runtime.train.window import data_place, mine_of_prefetch, share_of

_NOTHING_DUE: Final = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """What the loop needs to know of the job and of this incarnation."""

    incarnation: Incarnation
    start_step: int
    """Step of the loaded checkpoint; 0 for initial weights."""
    schedule: Schedule
    """Which windows train and which evaluate."""
    micro_batch_size: int
    packing_tokens: int | None = None
    """Tokens of one packed micro-batch; None packs nothing."""
    normalisation: Normalisation
    ranks_per_sample: int = 1
    """Ranks next to each other that take the same samples and split each among them."""
    evaluation: wire.EvaluationState | None = None
    """As of the loaded checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts(Generic[S]):
    """The adapters that the loop drives."""

    group: Group
    orders: OrderSource | None
    """None on every rank but 0."""
    source: FeatureSource[S]
    trainer: Trainer[S]
    saver: AsyncSaver
    work: Work
    before_save: Callable[[], None] = lambda: None
    """Called before a checkpoint is begun; raises when the job's inputs turn out to have changed."""
    log: Callable[[int, dict[str, float]], None] = lambda step, metrics: None
    """Takes the metrics of a step, on rank 0."""


class TrainLoop(Generic[S]):
    """One incarnation's loop on one rank."""

    def __init__(self, settings: LoopSettings, parts: Parts[S]) -> None:
        self._settings, self._parts = settings, parts
        self._data = WindowData(parts.source, parts.trainer, parts.work)
        self._step = settings.start_step
        self._verdicts: list[wire.Verdict] = []
        self._evaluations = Evaluations(settings.evaluation, settings.normalisation)
        self._freed = FreedMemory()

    def run(self) -> Exit:
        """Act on orders until one says that it was the last. Returns `DONE` or `TEMPORARY` (drained).

        Raises `Closed` and `Fenced` (the incarnation is over), `UserError` (divergence, changed inputs), `OSError`.
        """
        try:
            ordinal = 0
            while True:
                order = self._next_order(ordinal)
                if order is None:
                    continue
                if order.kind == "train":
                    self._train(order)
                elif order.kind == "checkpoint":
                    self._checkpoint(order)
                if order.kind == "stop" or order.last:
                    return self._finish(order)
                ordinal += 1
        finally:
            self._data.close()

    def _next_order(self, ordinal: int) -> wire.Order | None:
        parts = self._parts
        parts.saver.check()
        parts.work.phase = "saving" if parts.saver.busy else "idle"
        raw: bytes | None = None
        if parts.orders is not None:
            found = parts.orders.next(ordinal, wait_seconds=TURN_SECONDS)
            raw = _NOTHING_DUE if found is None else wire.encode(found)
        raw = parts.group.broadcast(raw)
        if raw == _NOTHING_DUE:
            return None
        order = msgspec.json.decode(raw, type=wire.Order)
        expected = self._step + 1 if order.kind == "train" else self._step
        if order.ordinal != ordinal or order.step != expected:
            raise Bug(f"order {order.ordinal} at step {order.step} does not follow step {self._step}")
        parts.work.phase = "working"
        return order

    def _train(self, order: wire.Order) -> None:
        parts, settings = self._parts, self._settings
        began = time.monotonic()
        packing = settings.packing_tokens
        rank, world = data_place(
            rank=parts.group.rank, world_size=parts.group.world_size, ranks_per_sample=settings.ranks_per_sample
        )
        share = share_of(
            order,
            rank=rank,
            world_size=world,
            micro_batch_size=settings.micro_batch_size,
            packing_tokens=packing,
            training_step=settings.schedule.training_step(order.step),
        )
        self._data.start(
            share,
            mine_of_prefetch(
                order,
                window_size=settings.schedule.window_size,
                rank=rank,
                world_size=world,
                packing_tokens=packing,
            ),
        )
        step = WindowStep(
            share,
            self._data,
            parts.trainer,
            parts.group,
            parts.work,
            settings.normalisation,
            ranks_per_sample=settings.ranks_per_sample,
        )
        part = settings.schedule.rounds.part(order.step)
        result = step.run() if part is None else self._evaluate(order.step, part, step)
        self._step = order.step
        hit("train.after_step")
        self._verdicts.extend(result.verdicts)
        if parts.orders is not None:
            self._ack(parts.orders, order, result, time.monotonic() - began)
        self._freed.give_back()

    def _evaluate(self, number: int, part: Part, step: WindowStep[S]) -> WindowResult:
        verdicts, measured = step.measure()
        found = self._evaluations.add(number, part, measured, self._parts.trainer.metrics)
        return WindowResult(verdicts=verdicts, metrics={"live_samples": float(len(measured.live)), **found})

    def _ack(self, orders: OrderSource, order: wire.Order, result: WindowResult, seconds: float) -> None:
        metrics = {**result.metrics, "step_seconds": seconds}
        self._parts.log(self._settings.schedule.training_step(order.step), self._logged(order.step, metrics))
        orders.ack(
            wire.AckRequest(
                incarnation=self._settings.incarnation,
                step=order.step,
                version=order.version,
                verdicts=result.verdicts,
                metrics=metrics,
            )
        )

    def _logged(self, number: int, metrics: dict[str, float]) -> dict[str, float]:
        """What belongs to a curve: of an evaluation window, only what the round says."""
        if self._settings.schedule.rounds.part(number) is None:
            return metrics
        return {name: value for name, value in metrics.items() if name.startswith(PREFIX)}

    def _checkpoint(self, order: wire.Order) -> None:
        parts = self._parts
        parts.before_save()
        parts.saver.wait()
        if order.state is None:
            raise Bug(f"the order for a checkpoint at step {order.step} carries no state")
        # What the parent holds is in its manifest; a save that failed ends this process, so the newest commit of
        # this incarnation, or the checkpoint it started from, is the parent.
        parent = max(self._settings.start_step, parts.saver.committed_step)
        self._verdicts = [verdict for verdict in self._verdicts if verdict.step > parent]
        parts.saver.start(
            Save(
                step=order.step,
                pieces=parts.trainer.pieces(),
                state=order.state,
                verdicts=tuple(self._verdicts),
                evaluation=self._evaluations.state_at(order.step, parts.saver.directory_at(order.step))
                if self._settings.schedule.rounds.is_on
                else None,
            )
        )
        parts.work.tick()

    def _finish(self, order: wire.Order) -> Exit:
        parts = self._parts
        parts.work.phase = "saving"
        parts.saver.wait()
        if parts.orders is not None:
            parts.orders.close()
        return Exit.TEMPORARY if order.reason == "drain" else Exit.DONE
