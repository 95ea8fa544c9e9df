"""The leases that this process holds, and the thread that renews those whose work moves.

A lease is kept alive by work, not by a heartbeat: a device that hangs stops moving the counter, its lease expires, and
somebody else captures the group. One counter serves all leases of the process, because the pipeline is bounded: a hang
anywhere in it stops everything within one group. What the service no longer knows is marked, and whoever works on it
finds out at its next step.
"""

import logging
import threading
from typing import Final, Protocol

from eyas_contract import wire
from eyas_contract.errors import Transient
from eyas_runtime.capture.engine import LeaseLost

LOG: Final = logging.getLogger("eyas.capture")
RENEWALS_PER_TERM: Final = 3
IDLE_SECONDS: Final = 1.0
"""Pause of the renewing thread while nothing is held."""


class LeaseCalls(Protocol):
    """What this module needs of `MetadataClient`."""

    def renew(self, request: wire.RenewRequest) -> wire.RenewReply: ...
    def return_leases(self, request: wire.ReturnRequest) -> wire.Empty: ...


class Holdings:
    """Leases held now. All methods may be called from any thread."""

    def __init__(self, calls: LeaseCalls, holder: wire.Holder) -> None:
        self._calls = calls
        self.holder: Final = holder
        self._lock = threading.Lock()
        self._returning = threading.Lock()
        self._held: dict[str, wire.CaptureLease] = {}
        self._moves = 0
        self._moves_renewed = 0
        self._failure: BaseException | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the renewing thread."""
        self._thread = threading.Thread(target=self._renew_for_ever, name="renew", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop renewing."""
        self._closed.set()

    def take(self, lease: wire.CaptureLease) -> None:
        """This process holds `lease` from now on."""
        with self._lock:
            self._held[lease.lease_id] = lease
            self._moves += 1

    def drop(self, lease_id: str) -> None:
        """Done with it, or it is lost."""
        with self._lock:
            self._held.pop(lease_id, None)

    def advance(self, lease_id: str) -> None:
        """Work on `lease_id` moved. Raises `LeaseLost` if it is no longer ours, and what ended the other threads."""
        with self._lock:
            self._moves += 1
        self.still_ours(lease_id)

    def still_ours(self, lease_id: str) -> None:
        """Raise as `advance` does, without the claim that work moved."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if lease_id not in self._held:
                raise LeaseLost(lease_id)

    def fail(self, failure: BaseException) -> None:
        """Make every thread that calls `check` or `advance` raise `failure`; the first one counts."""
        with self._lock:
            self._failure = self._failure or failure

    def check(self) -> None:
        """Raise what ended another thread, if anything did."""
        with self._lock:
            if self._failure is not None:
                raise self._failure

    def return_all(self) -> None:
        """Give every lease back at once, so that nobody has to wait for an expiry; returns when all are given back."""
        with self._returning:
            with self._lock:
                lease_ids = tuple(self._held)
                self._held.clear()
            if lease_ids:
                self._calls.return_leases(wire.ReturnRequest(holder=self.holder, lease_ids=lease_ids))

    def renew_moved(self) -> None:
        """Renew all leases, if work moved since the last renewal; forget those that the service no longer knows."""
        with self._lock:
            lease_ids = tuple(self._held) if self._moves != self._moves_renewed else ()
            moves = self._moves
        if not lease_ids:
            return
        alive = set(self._calls.renew(wire.RenewRequest(holder=self.holder, lease_ids=lease_ids)).alive)
        with self._lock:
            self._moves_renewed = moves
            for lease_id in set(lease_ids) - alive:
                if self._held.pop(lease_id, None) is not None:
                    LOG.info("lease %s is no longer ours", lease_id)

    def _renew_for_ever(self) -> None:
        while not self._closed.wait(self._pause_seconds()):
            try:
                self.renew_moved()
            except Transient as error:
                LOG.warning("cannot renew: %s", error)
            except Exception as error:  # noqa: BLE001 - the top frame of a thread: the producer's loop raises it again
                self.fail(error)
                return

    def _pause_seconds(self) -> float:
        with self._lock:
            terms = [lease.term_seconds for lease in self._held.values()]
        return min(terms) / RENEWALS_PER_TERM if terms else IDLE_SECONDS
