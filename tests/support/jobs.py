"""A job in miniature for tests of the metadata store: facts, prepared inputs, and an actor that speaks the port.

The actor mints its nonces from a counter, so that a failing sequence of calls prints the same names every time.
"""

import sys
from array import array
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

from eyas_contract import wire
from eyas_contract.ids import Incarnation, JobUid, LeaseToken, sample_id
from eyas_contract.refs import FeatureSpec, SampleRef
from eyas_runtime.metadata.port import JobFacts, LeaseGrant, MetadataStore

JOB_UID = JobUid("testjob0001")
BYTES_PER_TOKEN = 64
BYTES_PER_SAMPLE = 100
NOW = 1_700_000_000.0
NO_INCARNATION = Incarnation("")


def facts(**changes: object) -> JobFacts:
    """Facts of a small job: windows of 4, groups of 3."""
    values: dict[str, object] = {
        "job_uid": JOB_UID,
        "store_epoch": 1,
        "window_size": 4,
        "group_size": 3,
        "epochs": 1,
        "max_steps": None,
        "seed": 7,
        "retain_objects": False,
    }
    return JobFacts(**{**values, **changes})  # type: ignore[arg-type]


def _packed(kind: str, values: Sequence[int]) -> str:
    numbers = array(kind, values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode("ascii")


def inputs(name: str = "data") -> wire.Inputs:
    """Digests of inputs called `name`."""
    return wire.Inputs(data=f"blake3:{name}", tokenizer="blake3:tok", template="blake3:tpl", target="blake3:target")


def prepared(trained: int = 20, *, empty: tuple[int, ...] = (), name: str = "data", held_out: int = 0) -> wire.Prepared:
    """`trained` prompts of 5 to 11 tokens, and `held_out` ones behind them."""
    count = trained + held_out
    return wire.Prepared(
        inputs=inputs(name),
        prompt_count=trained,
        held_out_count=held_out,
        file_indices=_packed("H", [0] * count),
        offsets=_packed("Q", [100 * index for index in range(count)]),
        token_counts=_packed("I", [5 + index % 7 for index in range(count)]),
        supervised_counts=_packed("I", [0 if index in empty else 3 for index in range(count)]),
        draft_to_target=_packed("q", [0, 0]),
        target_vocab_size=32,
        hidden_size=4,
        bytes_per_token=BYTES_PER_TOKEN,
        bytes_per_sample=BYTES_PER_SAMPLE,
        empty_prompts=empty,
    )


def fingerprint(name: str = "cpu-a") -> wire.Fingerprint:
    """A fingerprint called `name`."""
    return wire.Fingerprint(facts={"device": name}, digest=f"blake3:{name}")


def holder(index: int = 0, ordinal: int = 1, restart: int = 0) -> wire.Holder:
    """A producer process."""
    return wire.Holder(index=index, ordinal=ordinal, restart=restart)


def ref_for(
    task_key: str, generation: int, sequence: int, tokens: int, *, payload: str = "p", on: str = ""
) -> SampleRef:
    """A ref as a producer makes it; `payload` names the captured bits."""
    return SampleRef(
        sample_id=sample_id(sequence),
        sequence=sequence,
        key=task_key,  # type: ignore[arg-type]
        generation=generation,
        digest=f"blake3:{task_key}",
        payload_digest=f"blake3:{payload}-{sequence}",
        length=tokens * BYTES_PER_TOKEN + BYTES_PER_SAMPLE,
        num_tokens=tokens,
        num_supervised=3,
        feature_specs=(FeatureSpec("hidden_state", (1, tokens, 4), "float32"),),
        fingerprint=on,
    )


@dataclass
class Actor:
    """Plays producers, ranks and the service against one store."""

    store: MetadataStore
    attempt: int = 1
    world_size: int = 2
    count: int = 0
    incarnation: Incarnation = NO_INCARNATION
    ordinal: int = 0
    step: int = 0
    orders: dict[int, wire.Order] = field(default_factory=dict)
    committed: list[wire.PresentedCheckpoint] = field(default_factory=list)

    def nonce(self) -> str:
        """32 hex digits that were never used."""
        self.count += 1
        return f"{self.count:032x}"

    # --- producers ---

    def register(self, who: wire.Holder | None = None, *, on: str = "cpu-a") -> wire.Holder:
        who = who or holder()
        self.store.register(who, fingerprint(on), now=NOW)
        return who

    def lease(
        self, who: wire.Holder | None = None, *, group: int | None = None, request: str = ""
    ) -> wire.CaptureLease:
        """Lease a group; the lowest in need unless one is named."""
        who = who or holder()
        if group is None:
            group = self.store.groups_in_need(limit=1)[0].group
        return self.store.grant(
            LeaseGrant(
                holder=who,
                request_id=request or self.nonce(),
                group=group,
                lease_id=self.nonce(),
                token=LeaseToken(self.nonce()),
                randoms=tuple(self.nonce() for _ in range(16)),
                reserved_bytes=1000,
                term_seconds=30.0,
                deadline_seconds=600.0,
            ),
            now=NOW,
        )

    def refs_of(self, lease: wire.CaptureLease, *, payload: str = "p", on: str = "") -> list[SampleRef]:
        """What a producer would commit for a lease."""
        return [
            ref_for(task.key, task.generation, task.sequence, task.num_tokens, payload=payload, on=on)
            for task in lease.tasks
            if task.key is not None
        ]

    def commit(
        self, lease: wire.CaptureLease, who: wire.Holder | None = None, *, payload: str = "p", on: str = ""
    ) -> tuple[int, ...]:
        """Commit everything a lease asks for."""
        refs = self.refs_of(lease, payload=payload, on=on)
        return self.store.commit_samples(who or holder(), lease.lease_id, lease.token, refs, now=NOW)

    def capture_all(self, *, until: int | None = None, payload: str = "p") -> None:
        """Capture every group in need that begins below `until`."""
        while needs := self.store.groups_in_need(limit=1):
            if until is not None and needs[0].first_sequence >= until:
                return
            self.commit(self.lease(group=needs[0].group), payload=payload)

    # --- ranks ---

    def reconcile(
        self,
        shown: wire.PresentedCheckpoint | None = None,
        *,
        process: str = "",
        valid: bool = True,
        refused: tuple[str, ...] = (),
        listed: tuple[str, ...] = (),
        on: str = "gpu-a",
    ) -> wire.ReconcileReply:
        """Start the ranks from a checkpoint."""
        reply = self.store.reconcile_on_restart(
            wire.ReconcileRequest(
                attempt=self.attempt,
                world_size=self.world_size,
                process=process or self.nonce(),
                fingerprint=fingerprint(on),
                checkpoint=shown,
                refused=refused,
                listed=listed,
            ),
            Incarnation(self.nonce()),
            receipt_valid=valid,
            now=NOW,
        )
        self.incarnation, self.ordinal, self.step = reply.incarnation, 0, reply.checkpoint_step
        self.orders = {}
        return reply

    def train(self, *, ack: bool = True, verdicts: tuple[wire.Verdict, ...] = ()) -> wire.Order:
        """Take the next window."""
        order = self.store.give_train_order(self.incarnation, self.ordinal, self.step + 1, now=NOW)
        self.ordinal += 1
        self.step += 1
        self.orders[self.step] = order
        if ack:
            self.ack(self.step, verdicts=verdicts)
        return order

    def ack(
        self,
        step: int,
        *,
        verdicts: tuple[wire.Verdict, ...] = (),
        loss: float = 1.0,
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Ack a window with the version that was handed out."""
        self.store.record_train_ack(
            wire.AckRequest(
                incarnation=self.incarnation,
                step=step,
                version=self.orders[step].version,
                verdicts=verdicts,
                metrics={"loss": loss, "step_seconds": 0.5} if metrics is None else metrics,
            ),
            now=NOW,
        )

    def order_checkpoint(self, *, last: bool = False, reason: str = "schedule") -> wire.Order:
        """Order a checkpoint at the present boundary."""
        order = self.store.give_checkpoint_order(
            self.incarnation, self.ordinal, self.step, last=last, reason=reason, now=NOW
        )
        self.ordinal += 1
        return order

    def best_at(self, order: wire.Order, eval_loss: float) -> wire.Best:
        """The checkpoint of `order` as the best one."""
        return wire.Best(
            directory=self._directory(order), step=order.step, training_step=order.step, eval_loss=eval_loss
        )

    def _directory(self, order: wire.Order) -> str:
        return f"step-{order.step:09d}.a{self.attempt}.{self.incarnation[-8:]}"

    def commit_request(
        self,
        order: wire.Order,
        *,
        verdicts: tuple[wire.Verdict, ...] = (),
        digest: str = "",
        best: wire.Best | None = None,
    ) -> wire.CheckpointCommitRequest:
        """The commit of a checkpoint that was ordered."""
        assert order.state is not None
        return wire.CheckpointCommitRequest(
            incarnation=self.incarnation,
            attempt=self.attempt,
            store_epoch=order.state.store_epoch,
            step=order.step,
            directory=self._directory(order),
            manifest_digest=digest or f"blake3:manifest-{self.incarnation}-{order.step}",
            verdicts=verdicts,
            weights_sha256=f"sha-{order.step}",
            world_size=self.world_size,
            nbytes=1000,
            best=best,
        )

    def present(
        self,
        order: wire.Order,
        request: wire.CheckpointCommitRequest,
        *,
        points: tuple[wire.EvaluationPoint, ...] = (),
    ) -> wire.PresentedCheckpoint:
        """What rank 0 will show of this checkpoint at a later start: the record, with the manifest's verdicts."""
        assert order.state is not None
        letters = {letter.sequence: letter for letter in order.state.dead_letters}
        for verdict in request.verdicts:
            letters[verdict.sequence] = wire.DeadLetter(
                sequence=verdict.sequence, step=verdict.step, reason=verdict.reason, source="rank"
            )
        state = wire.CheckpointState(
            **{
                **{name: getattr(order.state, name) for name in order.state.__struct_fields__},
                "dead_letters": tuple(letters[sequence] for sequence in sorted(letters)),
            }
        )
        return wire.PresentedCheckpoint(
            directory=request.directory,
            step=request.step,
            store_epoch=request.store_epoch,
            attempt=request.attempt,
            incarnation=request.incarnation,
            manifest_digest=request.manifest_digest,
            receipt=f"receipt-{request.manifest_digest}",
            state=state,
            evaluation=None if request.best is None else wire.EvaluationState(points=points, best=request.best),
        )

    def checkpoint(
        self,
        *,
        last: bool = False,
        verdicts: tuple[wire.Verdict, ...] = (),
        keep: int = 2,
        eval_loss: float | None = None,
        best: wire.Best | None = None,
    ) -> wire.PresentedCheckpoint:
        """Order and commit a checkpoint at the present boundary; with `eval_loss` it is the best one."""
        order = self.order_checkpoint(last=last)
        if eval_loss is not None:
            best = self.best_at(order, eval_loss)
        request = self.commit_request(order, verdicts=verdicts, best=best)
        shown = self.present(order, request)
        self.store.commit_checkpoint(request, shown.receipt, keep=keep, now=NOW)
        self.committed.append(shown)
        return shown

    def lose(self, *samples: tuple[int, int]) -> int:
        """Report (sequence, generation) lost."""
        return self.store.report_lost(
            self.incarnation,
            [wire.LostSample(sequence=s, generation=g, reason="digest mismatch") for s, g in samples],
            now=NOW,
        )

    def sweep_garbage(self) -> int:
        """Delete everything releasable, as the service's sweeper does."""
        deleted = 0
        while batch := self.store.releasable(limit=100):
            self.store.forget_objects([each.key for each in batch])
            deleted += len(batch)
        return deleted
