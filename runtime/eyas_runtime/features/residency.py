"""What one process put into the store, reads from it, and has yet to free: bookkeeping without I/O.

Leases and caps of the *job* are the metadata service's. What is kept here is what only this process can know: views it
handed out, deletions that the store refused for now, and the bytes for which it is responsible. Everything changes
under one lock, so that two puts cannot pass the cap together and a free cannot cross a new lease. Nothing here grows
with the number of samples that went through: an entry ends with its object, or when the object is handed over.
"""

import secrets
import threading
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from eyas_contract.errors import NotReadable, StoreFull
from eyas_contract.ids import LeaseToken


@dataclass(slots=True, kw_only=True)
class _Entry:
    nbytes: int
    put_at: float | None
    """When this process put it; None if it only reads it."""
    leases: set[str] = field(default_factory=set)
    freeing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts for `health`."""

    resident_samples: int
    resident_bytes: int
    active_leases: int
    release_pending: int
    oldest_age_s: float
    avg_age_s: float


class Residency:
    """Bytes, leases and pending deletions of one `FeatureStore`."""

    def __init__(self, *, max_bytes: int | None) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._keys_by_lease: dict[str, str] = {}
        self._bytes = 0

    def reserve(self, key: str, nbytes: int, now: float) -> bool:
        """Count `nbytes` for a put of `key`; False if it is counted already, for this is a repeat.

        Raises `StoreFull`, changing nothing, when the cap would be passed.
        """
        with self._lock:
            if key in self._entries:
                return False
            if self.max_bytes is not None and self._bytes + nbytes > self.max_bytes:
                raise StoreFull(f"{nbytes} bytes do not fit: {self._bytes} of {self.max_bytes} are resident")
            self._entries[key] = _Entry(nbytes=nbytes, put_at=now)
            self._bytes += nbytes
            return True

    def lease(self, key: str) -> LeaseToken:
        """A new lease on `key`. Raises `NotReadable` if it is being freed."""
        token = LeaseToken(secrets.token_hex(16))
        with self._lock:
            entry = self._entries.setdefault(key, _Entry(nbytes=0, put_at=None))
            if entry.freeing:
                raise NotReadable(f"{key} was freed")
            entry.leases.add(token)
            self._keys_by_lease[token] = key
        return token

    def end_lease(self, token: str) -> str | None:
        """End the lease; the key if this was its last one, None otherwise (also for an unknown token)."""
        with self._lock:
            key = self._keys_by_lease.pop(token, None)
            entry = None if key is None else self._entries.get(key)
            if key is None or entry is None:
                return None
            entry.leases.discard(token)
            if entry.leases:
                return None
            if entry.put_at is None and not entry.freeing:
                del self._entries[key]
            return key

    def begin_free(self, key: str, *, spare_leased: bool) -> bool:
        """From now on `key` is not readable here. False, changing nothing, if it is leased and shall be spared."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry(nbytes=0, put_at=None))
            if spare_leased and entry.leases:
                return False
            entry.freeing = True
            return True

    def forget(self, key: str) -> int:
        """The object is gone; returns the bytes that it counted."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                return 0
            for token in entry.leases:
                self._keys_by_lease.pop(token, None)
            self._bytes -= entry.nbytes
            return entry.nbytes

    def hand_over(self, key: str) -> None:
        """Somebody else answers for the object from now on: it counts no longer, and only views of it are kept here."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return
            self._bytes -= entry.nbytes
            entry.nbytes, entry.put_at = 0, None
            if not entry.leases and not entry.freeing:
                del self._entries[key]

    def pending(self) -> list[str]:
        """Keys whose deletion was decided and not done."""
        with self._lock:
            return [key for key, entry in self._entries.items() if entry.freeing]

    def put_here(self) -> list[str]:
        """Keys that this process put and that are not being freed."""
        with self._lock:
            return [key for key, entry in self._entries.items() if entry.put_at is not None and not entry.freeing]

    def expired(self, before: float, leased_elsewhere: Set[str]) -> list[str]:
        """Keys put here before `before` that are leased neither here nor, as the caller knows, elsewhere."""
        with self._lock:
            return [
                key
                for key, entry in self._entries.items()
                if entry.put_at is not None
                and entry.put_at < before
                and not entry.leases
                and not entry.freeing
                and key not in leased_elsewhere
            ]

    def totals(self, now: float) -> Totals:
        """Counts at `now`."""
        with self._lock:
            ages = [now - entry.put_at for entry in self._entries.values() if entry.put_at is not None]
            return Totals(
                resident_samples=len(ages),
                resident_bytes=self._bytes,
                active_leases=len(self._keys_by_lease),
                release_pending=_count(entry.freeing for entry in self._entries.values()),
                oldest_age_s=max(ages, default=0.0),
                avg_age_s=sum(ages) / len(ages) if ages else 0.0,
            )


def _count(flags: Iterable[bool]) -> int:
    return sum(flags)
