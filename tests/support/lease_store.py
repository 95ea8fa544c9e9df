"""One Lease in memory, with the API server's guard: a write must name the version that is there."""

from dataclasses import replace

from eyas_contract.errors import Conflict, Transient
from eyas_operator.leadership.election import Lease


class MemoryLeaseStore:
    """Shared by all candidates of a test."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.writes = 0
        self.away = False
        """Nobody answers."""
        self.deaf_writes = 0
        """So many writes are done, but their answers are lost."""

    async def read(self) -> Lease | None:
        if self.away:
            raise Transient("away")
        return self.lease

    async def write(self, lease: Lease) -> Lease:
        if self.away:
            raise Transient("away")
        stored = self.put(lease)
        if self.deaf_writes:
            self.deaf_writes -= 1
            raise Transient("the answer is lost")
        return stored

    def put(self, lease: Lease) -> Lease:
        """The guarded write. Raises `Conflict`."""
        there = self.lease.version if self.lease is not None else ""
        if lease.version != there:
            raise Conflict(f"at version {there}, not {lease.version}")
        self.writes += 1
        self.lease = replace(lease, version=str(self.writes))
        return self.lease
