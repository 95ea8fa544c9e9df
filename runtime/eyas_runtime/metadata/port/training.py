"""The part of the port that the ranks and their supervisors move: incarnations, windows, acks, checkpoints."""

from collections.abc import Sequence
from typing import Protocol

from eyas_contract import wire
from eyas_contract.ids import Incarnation
from eyas_runtime.metadata.port.values import GangState


class TrainingRecords(Protocol):
    """Incarnations of the ranks, their orders, and what they made durable."""

    def gang(self) -> GangState: ...
    def known_checkpoints(self) -> tuple[wire.KnownCheckpoint, ...]: ...
    def reconcile_on_restart(
        self, request: wire.ReconcileRequest, incarnation: Incarnation, *, receipt_valid: bool, now: float
    ) -> wire.ReconcileReply:
        """The one way back (B4): `core.recovery` decides. `receipt_valid`: the service checked the HMAC.

        The same process asking again gets the incarnation that it was given. `CheckpointsLost` (a `UserError`) also
        marks the job failed. `Transient` when the inputs must be prepared first: with evaluation, windows end where
        the number of prompts says.
        """
        ...

    def join(self, attempt: int, rank: int, process: str, *, now: float) -> GangState:
        """Record the member. A second process of one rank in an open incarnation closes it.

        Answers with `incarnation` None while none of this attempt is open; `Closed` for a process that had its turn.
        """
        ...

    def close_incarnation(self, incarnation: Incarnation, *, klass: str, message: str, now: float) -> None:
        """Close it and open an incident. Harmless when it is closed or unknown."""
        ...

    def report_exit(self, request: wire.ExitRequest, *, now: float) -> None:
        """Close the open incarnation of that life, unless it ended as ordered (code 0 or 75 after stop or last).

        Of a life whose processes had joined nothing it is an incident by itself, once for the life.
        """
        ...

    def report_restart(self, request: wire.RestartRequest) -> None:
        """One incident for a child that was started again in its pod; a repetition adds when it was ready.

        `Fenced` for a producer's pod older than the newest that registered. However many are told, the newest
        incidents of other classes stay among those of `status`.
        """
        ...

    def closed_processes(self, attempt: int, processes: Sequence[str]) -> tuple[str, ...]:
        """Those of `processes` that belong to a closed incarnation. `Fenced` for an attempt that is over."""
        ...

    def order(self, incarnation: Incarnation, ordinal: int) -> wire.Order | None:
        """The stored order, if it was given before."""
        ...

    def window_ready(self, step: int) -> bool:
        """Every place of window `step` is ready or dead."""
        ...

    def give_train_order(self, incarnation: Incarnation, ordinal: int, step: int, *, now: float) -> wire.Order:
        """Seal window `step` (or hand out the sealed one) and store the order. `Conflict` when not ready."""
        ...

    def give_checkpoint_order(
        self, incarnation: Incarnation, ordinal: int, step: int, *, last: bool, reason: str, now: float
    ) -> wire.Order: ...
    def give_stop_order(
        self, incarnation: Incarnation, ordinal: int, step: int, *, reason: str, now: float
    ) -> wire.Order: ...

    def record_train_ack(self, request: wire.AckRequest, *, now: float) -> None:
        """Step-stamped, monotonic within the incarnation, contiguous; a repeat is harmless."""
        ...

    def report_lost(self, incarnation: Incarnation, samples: Sequence[wire.LostSample], *, now: float) -> int:
        """Only generations that are still the row's count. Returns how many samples became lost."""
        ...

    def current_refs(
        self, incarnation: Incarnation, step: int, version: int, sequences: Sequence[int]
    ) -> wire.RefsReply:
        """`Closed` when the window has a newer version."""
        ...

    def commit_checkpoint(
        self, request: wire.CheckpointCommitRequest, receipt: str, *, keep: int, now: float
    ) -> tuple[str, ...]:
        """The single commit point: acks every sealed window <= C, writes the verdicts, moves the durable step.

        Stores the receipt; a repeat for the same manifest digest returns the same. Returns garbage directories.
        """
        ...
