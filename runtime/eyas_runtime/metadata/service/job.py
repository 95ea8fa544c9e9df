"""The job as the service knows it: the store, and what is kept in memory beside it.

Everything here belongs to the store's thread: calls come one after the other, so "read, decide, write" needs no lock.
What is in memory only (lease terms, the hang lease, a drain, who prepares) may be forgotten by a restart at any time.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NoReturn

from eyas_contract import wire
from eyas_contract.config import JobConfig
from eyas_contract.errors import UserError
from eyas_runtime.core.prompts import Prompts
from eyas_runtime.core.rounds import Part
from eyas_runtime.core.sequence import Schedule
from eyas_runtime.metadata.port import GangState, JobFacts, MetadataStore
from eyas_runtime.metadata.receipts import ReceiptFacts, is_valid, receipt
from eyas_runtime.metadata.service.clock import Clock
from eyas_runtime.metadata.service.hang import STEPS_REMEMBERED, HangLease
from eyas_runtime.metadata.service.leases import LeaseTerms
from eyas_runtime.metadata.service.progress import Progress
from eyas_runtime.metadata.service.waiting import Topic
from eyas_runtime.metadata.service.work import Work

EVAL_BEST: Final = "eval_best"
"""Metric of a round's last window: 1 when its loss is the lowest so far."""


def facts_of(config: JobConfig) -> JobFacts:
    """What the store must know of the job."""
    return JobFacts(
        job_uid=config.job_uid,
        store_epoch=config.store_epoch,
        window_size=config.training.window_size,
        group_size=config.data.group_size,
        epochs=config.data.epochs,
        max_steps=config.training.max_steps,
        seed=config.data.seed,
        retain_objects=bool(config.data.features),
        evaluate_every=0 if config.evaluation is None else config.evaluation.every_steps,
        allow_restart_from_zero=config.training.checkpoint.allow_restart_from_zero,
    )


@dataclass(slots=True)
class PrepareClaim:
    """Who was told to prepare the inputs, and until when that is believed."""

    holder: wire.Holder
    expires_at: float


@dataclass(slots=True, kw_only=True)
class Job:
    """See the module docstring. `wake_sweeper`: there may be something to release;
    `want_sweep`: there may be orphans or missing objects."""

    config: JobConfig
    facts: JobFacts
    store: MetadataStore
    clock: Clock
    receipt_key: bytes
    terms: LeaseTerms
    hang: HangLease
    progress: Progress
    work: Work = field(default_factory=Work)
    recorded_step: int = 0
    """Highest durable step that the operator had recorded when it made this pod."""
    nonce: Callable[[], str] = field(default=lambda: secrets.token_hex(16))
    wake_sweeper: Callable[[], None] = field(default=lambda: None)
    want_sweep: Callable[[], None] = field(default=lambda: None)
    pool_capacity_bytes: int | None = None
    paused: str = ""
    """Why the lowest group in need is not leased; empty when it could be."""
    pressure: bool = False
    """A checkpoint is needed before the next window can be admitted."""
    cap_bytes: int = 0
    failed: str = ""
    """Why the job has failed for good; empty while it has not."""
    draining_attempt: int = 0
    prepare_claim: PrepareClaim | None = None
    newest_holders: dict[int, wire.Holder] = field(default_factory=dict)
    changed: set[Topic] = field(default_factory=set)
    _gang: tuple[str | None, bool] = (None, False)
    _prepared: wire.Prepared | None = None
    _plan: tuple[Schedule, Prompts] | None = None

    def touch(self, *topics: Topic) -> None:
        """Something about `topics` changed: whoever waits for it looks again."""
        self.changed.update(topics)

    def take_changed(self) -> frozenset[Topic]:
        """The topics touched since the last call."""
        taken = frozenset(self.changed)
        self.changed.clear()
        return taken

    def prepared(self) -> wire.Prepared | None:
        """The prepared inputs; kept here, because they are large and written once."""
        if self._prepared is None:
            self._prepared = self.store.prepared()
        return self._prepared

    def plan(self) -> tuple[Schedule, Prompts] | None:
        """The order of the whole job and its prompts, once the inputs are prepared."""
        if self._plan is None and (prepared := self.prepared()) is not None:
            self._plan = (self.facts.schedule(prepared), Prompts.of(prepared))
        return self._plan

    def total_steps(self) -> int:
        """Windows of the whole job; 0 while the inputs are not prepared."""
        plan = self.plan()
        return 0 if plan is None else plan[0].total_steps

    def training_step(self, step: int) -> int:
        """Optimizer steps made once window `step` is done; 0 while the inputs are not prepared."""
        plan = self.plan()
        return 0 if plan is None else plan[0].training_step(step)

    def evaluation_part(self, step: int) -> Part | None:
        """Which part of an evaluation window `step` is; None for one that trains."""
        plan = self.plan()
        return None if plan is None or not step else plan[0].rounds.part(step)

    def is_best(self, step: int) -> bool:
        """Whether the evaluation that ended with window `step` gave the lowest loss so far, as its ack said."""
        found = self.store.metrics(step - 1, 1).steps
        return bool(found) and found[0].step == step and bool(found[0].values.get(EVAL_BEST))

    def is_complete(self) -> bool:
        """Every sequence number is trained or dead, and a durable checkpoint says so."""
        total = self.total_steps()
        return total > 0 and self.store.gang().durable_step >= total

    def fail(self, message: str) -> NoReturn:
        """End the job for good. Raises `UserError` with the same message."""
        self.mark_failed(message)
        raise UserError(message)

    def mark_failed(self, message: str) -> None:
        """End the job for good; the first message stays."""
        self.store.fail_job(message, now=self.clock.wall())
        self.failed = self.failed or message
        self.touch(*Topic)

    def wake_sweeper_if_garbage(self) -> None:
        """Bytes are waited for that the sweeper can free."""
        if self.store.usage().garbage_bytes > 0:
            self.wake_sweeper()

    def look_at_gang(self) -> GangState:
        """The newest incarnation; wakes everybody whom its opening or closing concerns."""
        gang = self.store.gang()
        if (gang.incarnation, gang.open) != self._gang:
            self._gang = (gang.incarnation, gang.open)
            self.progress.restarted(gang.acked_step, gang.durable_step)
            self.touch(Topic.GANG, Topic.WINDOWS, Topic.CAPTURE)
        return gang

    def receipt_of(self, facts: ReceiptFacts) -> str:
        """Our receipt for `facts`."""
        return receipt(self.receipt_key, facts)

    def is_own_receipt(self, facts: ReceiptFacts, presented: str) -> bool:
        """Whether `presented` is our receipt for `facts`."""
        return is_valid(self.receipt_key, facts, presented)


def new_job(
    config: JobConfig, store: MetadataStore, *, clock: Clock, receipt_key: bytes, recorded_step: int = 0
) -> Job:
    """A job around an open store: leases found there get one full term, the median step comes from its metrics."""
    recovery = config.recovery
    terms = LeaseTerms()
    terms.adopt(store.live_leases(), now=clock.monotonic())
    hang = HangLease(
        floor_seconds=recovery.hang_seconds_min,
        startup_seconds=recovery.startup_deadline_seconds,
        checkpoint_seconds=float(config.training.checkpoint.deadline_seconds),
    )
    gang, status, now = store.gang(), store.status(), clock.monotonic()
    if gang.open and gang.incarnation is not None:
        hang.adopt(gang.incarnation)
    for step in store.metrics(max(0, gang.acked_step - STEPS_REMEMBERED), STEPS_REMEMBERED).steps:
        hang.remember(step.values.get("step_seconds"))
    job = Job(
        config=config,
        facts=facts_of(config),
        store=store,
        clock=clock,
        receipt_key=receipt_key,
        terms=terms,
        hang=hang,
        progress=Progress(now=now),
        work=Work(reached_step=status.reached_step, acked_step=gang.acked_step, began=now if gang.open else None),
        recorded_step=recorded_step,
        failed=status.failure,
    )
    job.look_at_gang()
    return job
