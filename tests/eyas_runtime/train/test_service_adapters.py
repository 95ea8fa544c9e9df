"""Orders, acks and the sign of life against the real service: pipelined, repeated, and over when the gang is."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from eyas_contract import wire
from eyas_contract.client import MetadataClient
from eyas_contract.errors import Closed, EyasError, Transient
from eyas_contract.ids import Incarnation
from eyas_runtime.train.heartbeat import Heartbeat, Work
from eyas_runtime.train.orders import ACKS_OUTSTANDING_MAX, ServiceOrders
from support.metadata_service import (
    FINGERPRINT,
    HOLDER,
    ServiceThread,
    client_of,
    prepared_inputs,
    refs_of,
    running_service,
)
from support.waiting import wait_until


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceThread]:
    with running_service(tmp_path) as service:
        producer = client_of(tmp_path, service.port, "producer")
        producer.register(wire.RegisterRequest(holder=HOLDER, fingerprint=FINGERPRINT))
        producer.prepare_commit(wire.PrepareCommitRequest(holder=HOLDER, prepared=prepared_inputs([5] * 8)))
        for _ in range(4):
            request = wire.LeaseRequest(holder=HOLDER, request_id=secrets.token_hex(16))
            lease = producer.lease(request).lease
            assert lease is not None
            producer.call(
                wire.COMMIT,
                wire.CommitRequest(holder=HOLDER, lease_id=lease.lease_id, token=lease.token, refs=refs_of(lease)),
            )
        yield service


@pytest.fixture
def client(service: ServiceThread, tmp_path: Path) -> MetadataClient:
    return client_of(tmp_path, service.port, "consumer")


def begin(client: MetadataClient, process: str = "ab" * 16) -> Incarnation:
    request = wire.ReconcileRequest(attempt=1, world_size=1, process=process, fingerprint=FINGERPRINT, checkpoint=None)
    return client.call(wire.RECONCILE, request).incarnation


def ack(incarnation: Incarnation, order: wire.Order) -> wire.AckRequest:
    return wire.AckRequest(
        incarnation=incarnation, step=order.step, version=order.version, verdicts=(), metrics={"loss": 1.0}
    )


def test_acks_leave_in_order_and_arrive_before_the_source_is_closed(client: MetadataClient) -> None:
    incarnation = begin(client)
    orders = ServiceOrders(client, incarnation)
    ordinal = 0
    for step in (1, 2):
        for _ in range(100):
            order = orders.next(ordinal, wait_seconds=5.0)
            if order is None:
                continue  # A wait that ended without news; the loop of the ranks asks again, too.
            ordinal += 1
            if order.kind == "train":
                break
        assert order is not None
        assert order.step == step
        orders.ack(ack(incarnation, order))
    orders.close()
    assert client.call(wire.STATUS, wire.Empty()).acked_step == 2


def test_an_order_is_given_again_for_the_same_ordinal(client: MetadataClient) -> None:
    orders = ServiceOrders(client, begin(client))
    assert orders.next(0, wait_seconds=5.0) == orders.next(0, wait_seconds=0.0) is not None
    orders.close()


def test_a_closed_incarnation_reaches_the_loop_through_the_next_ack(client: MetadataClient) -> None:
    incarnation = begin(client)
    orders = ServiceOrders(client, incarnation)
    order = orders.next(0, wait_seconds=5.0)
    assert order is not None
    begin(client, process="cd" * 16)

    def told() -> bool:
        try:
            orders.ack(ack(incarnation, order))
        except Closed:
            return True
        return False

    wait_until(told, "the loop to be told")


def test_an_absent_service_is_nothing_due_and_acks_are_bounded(
    client: MetadataClient, service: ServiceThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eyas_runtime.train.orders.AWAY_SECONDS", 0.2)
    incarnation = begin(client)
    orders = ServiceOrders(client, incarnation)
    order = orders.next(0, wait_seconds=5.0)
    assert order is not None
    service.stop()
    assert orders.next(1, wait_seconds=0.0) is None
    blocked, done = threading.Event(), threading.Event()

    def flood() -> None:
        for _ in range(ACKS_OUTSTANDING_MAX + 1):
            orders.ack(ack(incarnation, order))
        blocked.set()
        with suppress(Transient):
            orders.ack(ack(incarnation, order))
        done.set()

    threading.Thread(target=flood, daemon=True).start()
    assert blocked.wait(30)
    assert not done.is_set(), "more acks than the bound were taken"
    client.close()
    assert done.wait(30)


def test_the_end_of_an_incarnation_reaches_a_rank_that_sits_in_a_collective(client: MetadataClient) -> None:
    incarnation = begin(client)
    ended: list[EyasError] = []
    work = Work()
    beat = Heartbeat(client, incarnation=incarnation, rank=0, work=work, over=ended.append, interval_seconds=0.01)
    work.tick()
    begin(client, process="cd" * 16)
    wait_until(lambda: ended, "the rank to hear of it")
    assert isinstance(ended[0], Closed)
    beat.close()


def test_a_rank_that_is_done_does_not_hear_of_the_end(client: MetadataClient) -> None:
    ended: list[EyasError] = []
    beat = Heartbeat(client, incarnation=begin(client), rank=0, work=Work(), over=ended.append, interval_seconds=0.01)
    beat.close()
    begin(client, process="cd" * 16)
    beat.join()
    assert ended == []
