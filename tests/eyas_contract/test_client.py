"""Claims about the client, against a real service over a real database, and against servers that misbehave."""

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from eyas_contract import wire
from eyas_contract.client import BACKOFF_MAX_SECONDS, MetadataClient, backoff_seconds
from eyas_contract.client_http import CONNECTION_SECONDS, Connections
from eyas_contract.errors import Closed, Conflict, Fenced, Transient, Unauthenticated, UserError
from support.manual_clock import ManualClock
from support.metadata_service import (
    HOLDER,
    TOKENS,
    ServiceProcess,
    ServiceThread,
    client_of,
    free_port,
    job_config,
    running_service,
)
from support.proxies import cutting_proxy
from support.small_job import Rank, assert_same_job, producer_of

TOKEN_COUNTS = [8] * 8


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceThread]:
    with running_service(tmp_path) as running:
        yield running


def test_a_whole_job_through_the_client(service: ServiceThread, tmp_path: Path) -> None:
    producer = producer_of(tmp_path, service.port)
    consumer = client_of(tmp_path, service.port, "consumer")
    reader = client_of(tmp_path, service.port, "reader")
    producer.prepare(TOKEN_COUNTS)
    assert producer.produce() == 4
    rank = Rank(consumer)
    rank.reconcile()
    assert rank.run()
    assert rank.trained == [1, 2, 3, 4]
    status = reader.status()
    assert (status.phase.value, status.durable_step, status.total_steps) == ("Complete", 4, 4)
    audit = reader.audit()
    assert (audit.trained_once, audit.trained_twice, audit.missing) == (8, 0, 0)
    assert [entry.step for entry in reader.metrics(wire.MetricsRequest()).steps] == [1, 2, 3, 4]
    assert producer.lease().finished


@pytest.mark.parametrize("token", ["x" * 43, TOKENS["reader"]], ids=["unknown", "another role's"])
def test_a_wrong_token_is_an_error_and_not_repeated(service: ServiceThread, tmp_path: Path, token: str) -> None:
    path = tmp_path / "wrong"
    path.write_text(token)
    client = MetadataClient(f"http://127.0.0.1:{service.port}", str(path))
    with pytest.raises(Unauthenticated):
        client.lease(wire.LeaseRequest(holder=HOLDER, request_id="r"))


def test_a_missing_token_file_is_the_users_error(service: ServiceThread, tmp_path: Path) -> None:
    client = MetadataClient(f"http://127.0.0.1:{service.port}", str(tmp_path / "none"))
    with pytest.raises(UserError, match="none"):
        client.status()


def test_a_rotated_token_is_read_when_the_old_one_is_refused(
    service: ServiceThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eyas_runtime.metadata.service.auth.LOOK_SECONDS", 0.0)
    client = client_of(tmp_path, service.port, "reader")
    client.status()
    fresh = tmp_path / "secrets" / "fresh"
    fresh.write_text("n" * 43)
    os.replace(fresh, tmp_path / "secrets" / "reader.token")
    assert client.status().job_uid


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://127.0.0.1", "http://"])
def test_a_url_that_cannot_work_is_the_users_error(url: str) -> None:
    with pytest.raises(UserError):
        MetadataClient(url, "token")


def test_errors_arrive_as_the_classes_that_the_service_raised(service: ServiceThread, tmp_path: Path) -> None:
    producer = producer_of(tmp_path, service.port)
    consumer = client_of(tmp_path, service.port, "consumer")
    producer.prepare(TOKEN_COUNTS)
    rank = Rank(consumer, attempt=2)
    rank.reconcile()
    with pytest.raises(Fenced):
        Rank(consumer, attempt=1).reconcile()
    with pytest.raises(Conflict):
        consumer.order(wire.OrderRequest(incarnation=rank.incarnation, ordinal=7))
    consumer.exit(wire.ExitRequest(attempt=2, rank=0, process=rank.process, code=1))
    with pytest.raises(Closed):
        consumer.order(wire.OrderRequest(incarnation=rank.incarnation, ordinal=0))
    with pytest.raises(UserError):
        consumer.heartbeat(
            wire.HeartbeatRequest(incarnation=Rank(consumer, attempt=3).reconcile().incarnation, rank=9, counter=1,
                                  phase="working")
        )  # fmt: skip


def test_hazard_21_a_lease_whose_answer_was_lost_is_given_again_and_no_second_one(
    service: ServiceThread, tmp_path: Path
) -> None:
    with cutting_proxy(service.port) as proxy:
        producer = producer_of(tmp_path, proxy.port)
        producer.prepare(TOKEN_COUNTS)
        proxy.cuts = 3
        lease = producer.must_lease()
        assert proxy.cuts == 0
        assert client_of(tmp_path, service.port, "reader").status().live_leases == 1
        assert producer.lease(request_id="r0").lease == lease
        assert producer.commit(lease) == (0, 1)


@pytest.mark.parametrize("cuts", [1, 2])
def test_every_call_may_lose_its_answer_and_the_job_is_still_trained_once(
    service: ServiceThread, tmp_path: Path, cuts: int
) -> None:
    with cutting_proxy(service.port) as proxy:
        producer = producer_of(tmp_path, proxy.port)
        rank = Rank(client_of(tmp_path, proxy.port, "consumer"))

        def cutting(step: Callable[[], object]) -> None:
            proxy.cuts = cuts
            step()

        cutting(producer.register)
        cutting(lambda: producer.prepare(TOKEN_COUNTS))
        for _ in range(4):
            cutting(lambda: producer.produce(1))
        cutting(rank.reconcile)
        over = False
        while not over:
            proxy.cuts = cuts
            order = rank.order()
            assert order is not None
            proxy.cuts = cuts
            over = not rank.obey(order)
    audit = client_of(tmp_path, service.port, "reader").audit()
    assert (audit.trained_once, audit.trained_twice, audit.missing) == (8, 0, 0)
    assert rank.trained == [1, 2, 3, 4]


def test_hazard_44_a_receipt_that_never_arrived_is_given_again(service: ServiceThread, tmp_path: Path) -> None:
    with cutting_proxy(service.port) as proxy:
        producer = producer_of(tmp_path, service.port)
        producer.prepare(TOKEN_COUNTS)
        producer.produce()
        rank = Rank(client_of(tmp_path, proxy.port, "consumer"))
        rank.reconcile()
        train = rank.order()
        assert train is not None
        rank.ack(train)
        order = rank.order()
        assert order is not None
        assert order.kind == "checkpoint"
        proxy.cuts = 2
        reply = rank.save(order)
        (known,) = client_of(tmp_path, service.port, "reader").checkpoints().known
        assert known.receipt == reply.receipt


def test_hazard_44_a_receipt_that_was_not_stored_is_given_at_the_next_reconcile(
    service: ServiceThread, tmp_path: Path
) -> None:
    consumer = client_of(tmp_path, service.port, "consumer")
    producer = producer_of(tmp_path, service.port)
    producer.prepare(TOKEN_COUNTS)
    producer.produce()
    rank = Rank(consumer)
    rank.reconcile()
    rank.run(1)
    order = rank.order()
    assert order is not None
    request = rank.commit_request(order)
    receipt = consumer.checkpoint_commit(request).receipt
    rank.keep(order, request, receipt="")
    again = Rank(consumer, attempt=2, checkpoint=rank.checkpoint)
    reply = again.reconcile()
    assert (reply.receipt, reply.checkpoint_step) == (receipt, 1)


def test_hazard_33_a_caller_leaves_a_replaced_service_that_still_answers(
    service: ServiceThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = tmp_path / "later"
    later.mkdir()
    with running_service(later, job_config(later, store_epoch=2)) as successor, cutting_proxy(service.port) as proxy:
        client = client_of(tmp_path, proxy.port, "reader")
        assert client.status().store_epoch == 1
        proxy.target = successor.port
        assert client.status().store_epoch == 1, "the connection does not lead to the old one: nothing is shown"
        monkeypatch.setattr("eyas_contract.client_http.CONNECTION_SECONDS", 0.0)
        assert client.status().store_epoch == 2


def test_connections_are_made_anew_when_their_time_is_over_and_not_before() -> None:
    clock = ManualClock()
    connections = Connections("http://127.0.0.1:1", clock.monotonic)
    first = connections.pool()
    clock.advance(CONNECTION_SECONDS - 0.5)
    assert connections.pool() is first
    clock.advance(0.5)
    second = connections.pool()
    assert second is not first
    clock.advance(CONNECTION_SECONDS - 0.5)
    assert connections.pool() is second


def test_one_client_serves_several_threads(service: ServiceThread, tmp_path: Path) -> None:
    client = client_of(tmp_path, service.port, "reader")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.status().job_uid, range(64)))
    assert len(set(answers)) == 1


def test_a_long_poll_is_answered_when_there_is_news(service: ServiceThread, tmp_path: Path) -> None:
    producer = producer_of(tmp_path, service.port)
    consumer = client_of(tmp_path, service.port, "consumer")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(consumer.prepared, wire.PreparedRequest(wait_seconds=wire.WAIT_SECONDS_MAX))
        producer.prepare(TOKEN_COUNTS)
        assert waiting.result(60.0).prepared is not None


@pytest.mark.slow
def test_a_service_killed_in_the_middle_of_a_long_poll_is_found_again(tmp_path: Path) -> None:
    config = job_config(tmp_path, port=free_port())
    port = int(config.endpoints.metadata_url.rpartition(":")[2])
    first = ServiceProcess(tmp_path, config).wait_ready()
    producer = producer_of(tmp_path, port, deadline_seconds=None)
    consumer = client_of(tmp_path, port, "consumer", deadline_seconds=None)
    producer.register()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(consumer.prepared, wire.PreparedRequest(wait_seconds=wire.WAIT_SECONDS_MAX))
        first.kill()
        second = ServiceProcess(tmp_path, config).wait_ready()
        try:
            producer.prepare(TOKEN_COUNTS)
            reply = waiting.result(60.0)
            while reply.prepared is None:
                reply = consumer.prepared(wire.PreparedRequest(wait_seconds=1.0))
        finally:
            assert second.terminate() == 143


def test_without_an_answer_the_deadline_ends_the_call(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t" * 40)
    client = MetadataClient(f"http://127.0.0.1:{free_port()}", str(tmp_path / "token"), deadline_seconds=0.1)
    with pytest.raises(Transient, match="/v1/status"):
        client.status()


def test_a_closed_client_stops_repeating(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t" * 40)
    client = MetadataClient(f"http://127.0.0.1:{free_port()}", str(tmp_path / "token"))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.status)
        client.close()
        with pytest.raises(Transient, match="closed"):
            call.result(60.0)


class _Script(http.server.BaseHTTPRequestHandler):
    """Answers with what the test's script says, one entry a request; the last entry stays."""

    script: list[tuple[int, dict[str, str], bytes]]
    seen: list[dict[str, str]]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.seen.append(dict(self.headers))
        status, headers, body = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name in the standard library
        """Nothing is logged."""


@contextmanager
def scripted(
    tmp_path: Path, *script: tuple[int, dict[str, str], bytes]
) -> Iterator[tuple[MetadataClient, list[dict[str, str]]]]:
    """A client of a server that follows `script`, and the headers of what it asked."""
    handler = type("Handler", (_Script,), {"script": list(script), "seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    (tmp_path / "token").write_text("t" * 40)
    client = MetadataClient(f"http://127.0.0.1:{server.server_port}", str(tmp_path / "token"), deadline_seconds=5.0)
    try:
        yield client, handler.seen  # type: ignore[attr-defined]
    finally:
        client.close()
        server.shutdown()
        server.server_close()


WATCH = wire.WatchRequest(attempt=1, processes=())
GOOD = wire.encode(wire.WatchReply(closed=("x",)))


def epoch(number: int) -> dict[str, str]:
    return {wire.STORE_EPOCH_HEADER: str(number)}


def problem(kind: str) -> bytes:
    return wire.encode(wire.Problem(kind=kind, message="m"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param((502, {}, b"<html>"), id="a gateway"),
        pytest.param((503, epoch(1), problem("Transient")), id="a busy service"),
        pytest.param((500, epoch(1), problem("Bug")), id="a service about to be restarted"),
        pytest.param((200, {}, GOOD), id="a server that names no epoch"),
        pytest.param((200, epoch(0) | {wire.STORE_EPOCH_HEADER: "x"}, GOOD), id="an epoch that is none"),
        pytest.param((404, {}, b"{}"), id="another program"),
        pytest.param((200, epoch(1), b"{"), id="a torn answer"),
        pytest.param((200, epoch(1), b'{"closed":["\xff"]}'), id="an answer that is no text"),
        pytest.param((503, epoch(1), b'{"kind":"\xff"}'), id="a problem that is no text"),
        pytest.param((302, {"Location": "http://127.0.0.1:1/"}, b""), id="a redirect"),
    ],
)
def test_what_may_heal_is_repeated(tmp_path: Path, bad: tuple[int, dict[str, str], bytes]) -> None:
    with scripted(tmp_path, bad, bad, (200, epoch(1), GOOD)) as (client, seen):
        assert client.watch(WATCH).closed == ("x",)
        assert len(seen) == 3


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [("UserError", 400, UserError), ("Conflict", 409, Conflict), ("Fenced", 412, Fenced), ("Closed", 410, Closed),
     ("Unauthenticated", 403, Unauthenticated)],
)  # fmt: skip
def test_what_cannot_heal_is_raised_at_once(tmp_path: Path, kind: str, status: int, error: type[Exception]) -> None:
    with scripted(tmp_path, (status, epoch(1), problem(kind))) as (client, seen):
        with pytest.raises(error):
            client.watch(WATCH)
        assert len(seen) == 1


def test_the_answer_of_an_older_store_epoch_is_ignored(tmp_path: Path) -> None:
    old = (412, epoch(1), problem("Fenced"))
    stale = (200, epoch(1), wire.encode(wire.WatchReply(closed=("stale",))))
    with scripted(tmp_path, (200, epoch(2), GOOD), old, stale, (200, epoch(2), GOOD)) as (client, seen):
        client.watch(WATCH)
        assert client.store_epoch == 2
        assert client.watch(WATCH).closed == ("x",)
        assert [headers[wire.STORE_EPOCH_HEADER] for headers in seen] == ["0", "2", "2", "2"]


def test_retries_send_the_same_bytes(tmp_path: Path) -> None:
    with scripted(tmp_path, (503, epoch(1), problem("Transient")), (200, epoch(1), GOOD)) as (client, seen):
        client.watch(WATCH)
        assert seen[0]["Content-Length"] == seen[1]["Content-Length"]
        assert seen[0]["Authorization"] == "Bearer " + "t" * 40


def test_the_pause_doubles_up_to_a_cap_and_is_spread() -> None:
    pauses = [backoff_seconds(failures, at_least=0.0, fraction=0.999) for failures in range(1, 40)]
    assert all(later >= earlier for earlier, later in pairwise(pauses))
    assert max(pauses) <= BACKOFF_MAX_SECONDS
    assert backoff_seconds(3, at_least=0.0, fraction=0.0) < backoff_seconds(3, at_least=0.0, fraction=0.9)
    assert backoff_seconds(1, at_least=1.0, fraction=0.0) == 1.0
    assert backoff_seconds(1, at_least=3600.0, fraction=0.0) == BACKOFF_MAX_SECONDS


def test_the_service_of_the_job_is_the_one_that_answers(service: ServiceThread, tmp_path: Path) -> None:
    assert_same_job(producer_of(tmp_path, service.port).register())
