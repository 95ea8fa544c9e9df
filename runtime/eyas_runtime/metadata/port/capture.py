"""The part of the port that producers move: prepared inputs, groups in need, leases, commits."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from eyas_contract import wire
from eyas_contract.ids import LeaseToken
from eyas_contract.refs import SampleRef
from eyas_runtime.metadata.port.values import GroupNeed, LeaseGrant, LiveLease, Suspect


class CaptureRecords(Protocol):
    """Prepared inputs, and the samples that producers capture."""

    def prepared(self) -> wire.Prepared | None: ...
    def commit_prepared(self, prepared: wire.Prepared, *, now: float) -> None: ...
    def total_samples(self) -> int:
        """min(epochs * N, max_steps * Q); 0 while not prepared."""
        ...

    # producers
    def register(self, holder: wire.Holder, fingerprint: wire.Fingerprint, *, now: float) -> tuple[str, ...]:
        """Admit a producer process and end its predecessors' leases; returns their ids. `Fenced` if not the newest.

        A newer process is the successor of every earlier life of its index: their restarts that were told count as
        replaced, because the pod that would tell may be gone.
        """
        ...

    def groups_in_need(self, *, limit: int) -> Sequence[GroupNeed]:
        """Groups with pending or lost members and no live lease, by lowest sequence number in need.

        With `retain_objects`, members whose prompt has a resident object become ready here, without a capture. A fresh
        store of a later epoch answers nothing before its first reconcile: it does not know what is trained.
        """
        ...

    def grant(self, grant: LeaseGrant, *, now: float) -> wire.CaptureLease:
        """Write lease, reservation and minted keys. The same holder and request_id get the stored lease again."""
        ...

    def granted(self, holder: wire.Holder, request_id: str) -> wire.CaptureLease | None:
        """The lease that this request was given before, while it is live. `Fenced` if the holder is not the newest."""
        ...

    def live_leases(self) -> Sequence[LiveLease]: ...
    def end_leases(self, lease_ids: Iterable[str], *, reason: str, now: float) -> None:
        """Expiry, return or replacement: keys become orphans for the sweep, members are in need again.

        `reason` "expired" or "replaced" counts a death for the group, "deadline" an overrun, "returned" nothing.
        """
        ...

    def suspects(self, *, limit: int) -> Sequence[Suspect]:
        """Groups whose holders died, most often first."""
        ...

    def commit_samples(
        self, holder: wire.Holder, lease_id: str, token: LeaseToken, refs: Sequence[SampleRef], *, now: float
    ) -> tuple[int, ...]:
        """Guarded by the live lease and its keys. All or nothing. Counts drift against an earlier payload digest."""
        ...

    def fail_capture(
        self,
        holder: wire.Holder,
        lease_id: str,
        token: LeaseToken,
        failures: Sequence[wire.CaptureFailure],
        *,
        now: float,
    ) -> bool:
        """Poison becomes a dead letter (a new window version when sealed above the durable step), the rest is in need
        again. Returns True when the open incarnation had been handed the window; it is closed by this call."""
        ...
