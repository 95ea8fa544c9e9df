"""The part of the port that people and the service's own clockwork read, and the few facts that they add."""

from collections.abc import Iterable
from typing import Protocol

from eyas_contract import wire


class FactRecords(Protocol):
    """Progress, metrics, audit, incidents."""

    def durable_marker(self) -> tuple[int, int]:
        """(durable step, samples in windows <= it)."""
        ...

    def all_committed_ids(self) -> Iterable[str]:
        """Sample ids in commit order."""
        ...

    def status(self) -> wire.StatusReply:
        """With the fields that only the service knows (cap, paused, seconds since the last advance, lost work, goodput)
        left at zero or None. Asked every few seconds: must not walk over rows."""
        ...

    def metrics(self, after_step: int, limit: int) -> wire.MetricsReply: ...
    def audit(self) -> wire.AuditReply: ...
    def fail_job(self, message: str, *, now: float) -> None:
        """Mark the job failed; the first message stays."""
        ...
