"""Roles of a small job, played through any caller of the metadata service's endpoints: enough to train it to its end.

The producer and the rank here compute nothing; they say to the service what real ones say, in the same order.
"""

import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from eyas_contract import wire
from eyas_contract.ids import Incarnation
from eyas_contract.refs import SampleRef
from eyas_runtime.features.config import open_blobs
from support.metadata_service import (
    FINGERPRINT,
    HOLDER,
    UID,
    client_of,
    job_config,
    prepared_inputs,
    refs_of,
    store_of,
)

NO_INCARNATION = Incarnation("")
Put = Callable[[SampleRef], None]


class Caller(Protocol):
    """`MetadataClient.call`, or the service's functions without HTTP."""

    def call(self, endpoint: wire.Endpoint[wire.Q, wire.R], request: wire.Q) -> wire.R:
        """Make one call."""
        ...


@dataclass(slots=True)
class Producer:
    """One producer process. `put` stores the object of a ref before it is committed."""

    caller: Caller
    put: Put
    holder: wire.Holder = HOLDER
    requests: Iterator[int] = field(default_factory=itertools.count)

    def register(self) -> wire.RegisterReply:
        """First call."""
        return self.caller.call(wire.REGISTER, wire.RegisterRequest(holder=self.holder, fingerprint=FINGERPRINT))

    def prepare(self, token_counts: list[int]) -> None:
        """Register, and prepare if told to."""
        self.register()
        if self.caller.call(wire.PREPARE, wire.PrepareRequest(holder=self.holder)).verdict == "yours":
            prepared = prepared_inputs(token_counts)
            self.caller.call(wire.PREPARE_COMMIT, wire.PrepareCommitRequest(holder=self.holder, prepared=prepared))

    def lease(self, *, request_id: str = "", wait_seconds: float = 0.0) -> wire.LeaseReply:
        """Ask for a group."""
        request_id = request_id or f"r{next(self.requests)}"
        request = wire.LeaseRequest(holder=self.holder, request_id=request_id, wait_seconds=wait_seconds)
        return self.caller.call(wire.LEASE, request)

    def must_lease(self) -> wire.CaptureLease:
        """Ask for a group that must be there."""
        reply = self.lease()
        assert reply.lease is not None, reply
        return reply.lease

    def commit(self, lease: wire.CaptureLease) -> tuple[int, ...]:
        """Store and commit every member."""
        refs = refs_of(lease)
        for ref in refs:
            self.put(ref)
        request = wire.CommitRequest(holder=self.holder, lease_id=lease.lease_id, token=lease.token, refs=refs)
        return self.caller.call(wire.COMMIT, request).accepted

    def renew(self, *lease_ids: str) -> tuple[str, ...]:
        """Renew leases."""
        return self.caller.call(wire.RENEW, wire.RenewRequest(holder=self.holder, lease_ids=lease_ids)).alive

    def produce(self, groups: int = 1_000_000) -> int:
        """Capture up to `groups` groups, until there is nothing to lease; how many there were."""
        for done in range(groups):
            lease = self.lease().lease
            if lease is None:
                return done
            self.commit(lease)
        return groups


def producer_of(folder: Path, port: int, *, deadline_seconds: float | None = 30.0) -> Producer:
    """A producer of the service at `port` over `folder`. It puts real objects into the job's shared directory: the
    service sweeps when it likes, and a row without an object is a lost sample to it."""
    blobs = open_blobs(store_of(folder, job_config(folder)))
    client = client_of(folder, port, "producer", deadline_seconds=deadline_seconds)
    return Producer(client, put=lambda ref: blobs.put(ref.key, bytes(ref.length)))


@dataclass(slots=True)
class Rank:
    """Rank 0 of a gang of one, with a disk that holds its checkpoints."""

    caller: Caller
    attempt: int = 1
    process: str = field(default_factory=lambda: secrets.token_hex(16))
    checkpoint: wire.PresentedCheckpoint | None = None
    incarnation: Incarnation = field(default=NO_INCARNATION)
    ordinal: int = 0
    trained: list[int] = field(default_factory=list)
    orders: list[wire.Order] = field(default_factory=list)

    def reconcile(self) -> wire.ReconcileReply:
        """Start: present the newest checkpoint, get an incarnation."""
        request = wire.ReconcileRequest(
            attempt=self.attempt,
            world_size=1,
            process=self.process,
            fingerprint=FINGERPRINT,
            checkpoint=self.checkpoint,
        )
        reply = self.caller.call(wire.RECONCILE, request)
        self.incarnation, self.ordinal = reply.incarnation, 0
        return reply

    def order(self, *, wait_seconds: float = 0.0) -> wire.Order | None:
        """Ask for the next order; a given one is noted."""
        request = wire.OrderRequest(incarnation=self.incarnation, ordinal=self.ordinal, wait_seconds=wait_seconds)
        order = self.caller.call(wire.ORDER, request).order
        if order is not None:
            self.ordinal += 1
            self.orders.append(order)
        return order

    def ack(self, order: wire.Order) -> None:
        """Report a trained window."""
        self.trained.append(order.step)
        request = wire.AckRequest(
            incarnation=self.incarnation,
            step=order.step,
            version=order.version,
            verdicts=(),
            metrics={"loss": 1.0, "step_seconds": 0.5},
        )
        self.caller.call(wire.ACK, request)

    def commit_request(self, order: wire.Order) -> wire.CheckpointCommitRequest:
        """What commits the checkpoint that was ordered."""
        assert order.state is not None
        return wire.CheckpointCommitRequest(
            incarnation=self.incarnation,
            attempt=self.attempt,
            store_epoch=order.state.store_epoch,
            step=order.step,
            directory=f"step-{order.step:09d}.a{self.attempt}.{self.incarnation[:8]}",
            manifest_digest=f"{order.step:032x}{self.incarnation}",
            verdicts=(),
            weights_sha256="w" * 64,
            world_size=1,
            nbytes=1,
        )

    def save(self, order: wire.Order) -> wire.CheckpointCommitReply:
        """Commit the checkpoint that was ordered and keep it on this rank's disk."""
        request = self.commit_request(order)
        reply = self.caller.call(wire.CHECKPOINT_COMMIT, request)
        self.keep(order, request, reply.receipt)
        return reply

    def keep(self, order: wire.Order, request: wire.CheckpointCommitRequest, receipt: str) -> None:
        """The checkpoint is on disk with this receipt."""
        assert order.state is not None
        self.checkpoint = wire.PresentedCheckpoint(
            directory=request.directory,
            step=request.step,
            store_epoch=request.store_epoch,
            attempt=request.attempt,
            incarnation=request.incarnation,
            manifest_digest=request.manifest_digest,
            receipt=receipt,
            state=order.state,
        )

    def obey(self, order: wire.Order) -> bool:
        """Do what was ordered; False when it was the last."""
        if order.kind == "train":
            self.ack(order)
        elif order.kind == "checkpoint":
            self.save(order)
        return not (order.kind == "stop" or order.last)

    def run(self, orders: int = 1_000_000) -> bool:
        """Obey up to `orders` orders while there are any; True when the last one was given."""
        for _ in range(orders):
            order = self.order()
            if order is None:
                return False
            if not self.obey(order):
                return True
        return False


def assert_same_job(reply: wire.RegisterReply) -> None:
    """The service that answered is that of the test's job."""
    assert reply.job_uid == UID
