"""Which function answers which endpoint, what a long poll waits for, and when it has its news."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic

from eyas_contract import wire
from eyas_contract.wire import Endpoint, Q, R, RoleName
from eyas_runtime.metadata.service import consumer_calls as consumers
from eyas_runtime.metadata.service import producer_calls as producers
from eyas_runtime.metadata.service import reader_calls as readers
from eyas_runtime.metadata.service.job import Job
from eyas_runtime.metadata.service.waiting import Topic


@dataclass(frozen=True, slots=True)
class Route(Generic[Q, R]):
    """One call: `answer` runs in the store's thread; one not `settled` is asked again when `topic` moves."""

    endpoint: Endpoint[Q, R]
    answer: Callable[[Job, Q], R]
    topic: Topic | None = None
    settled: Callable[[R], bool] = lambda _: True
    permits: Callable[[Q, frozenset[RoleName]], bool] = lambda _, __: True
    """Whether a caller with these roles, which may make the call, may say this."""


_ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route(wire.REGISTER, producers.register),
    Route(wire.PREPARE, producers.prepare, Topic.INPUTS, lambda reply: reply.verdict != "wait"),
    Route(wire.PREPARE_COMMIT, producers.prepare_commit),
    Route(wire.PREPARED, producers.prepared, Topic.INPUTS, lambda reply: reply.prepared is not None),
    Route(wire.LEASE, producers.lease, Topic.CAPTURE, lambda reply: reply.lease is not None or reply.finished),
    Route(wire.RENEW, producers.renew),
    Route(wire.COMMIT, producers.commit),
    Route(wire.CAPTURE_FAIL, producers.capture_fail),
    Route(wire.RETURN, producers.return_leases),
    Route(wire.CHECKPOINTS, consumers.checkpoints),
    Route(wire.RECONCILE, consumers.reconcile),
    Route(wire.JOIN, consumers.join, Topic.GANG, lambda reply: reply.incarnation is not None),
    Route(wire.ORDER, consumers.order, Topic.WINDOWS, lambda reply: reply.order is not None),
    Route(wire.ACK, consumers.ack),
    Route(wire.LOST, consumers.lost),
    Route(wire.REFS, consumers.refs, Topic.WINDOWS, lambda reply: not reply.pending),
    Route(wire.HEARTBEAT, consumers.heartbeat),
    Route(wire.CHECKPOINT_COMMIT, consumers.checkpoint_commit),
    Route(wire.EXIT, consumers.exit_),
    Route(wire.RESTART, producers.restart, permits=producers.may_tell),
    Route(wire.WATCH, consumers.watch, Topic.GANG, lambda reply: bool(reply.closed)),
    Route(wire.DRAIN, consumers.drain),
    Route(wire.STATUS, readers.status),
    Route(wire.METRICS, readers.metrics),
    Route(wire.AUDIT, readers.audit),
)
ROUTES: Final[Mapping[str, Route[Any, Any]]] = {route.endpoint.path: route for route in _ROUTES}
