"""Claims about the HTTP front: limits before credentials before parsing, and a sentence for every refusal."""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyas_contract import wire
from eyas_runtime.metadata.service import limits
from support.metadata_service import HOLDER, TOKENS, ServiceThread, running_service
from support.waiting import wait_until

STATUS = wire.STATUS.path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceThread]:
    with running_service(tmp_path_factory.mktemp("job")) as running:
        yield running


def post(
    service: ServiceThread,
    path: str,
    body: bytes = b"{}",
    *,
    role: wire.RoleName | None = "consumer",
    headers: dict[str, str] | None = None,
    method: str = "POST",
) -> tuple[int, Any, dict[str, str]]:
    """One raw request; status, decoded body, headers."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30.0)
    sent = {"Content-Type": "application/json", **(headers or {})}
    if role is not None:
        sent.setdefault("Authorization", f"Bearer {TOKENS[role]}")
    try:
        connection.request(method, path, body=body, headers=sent)
        response = connection.getresponse()
        raw = response.read()
        try:
            content = json.loads(raw)
        except ValueError:
            content = raw
        return response.status, content, dict(response.getheaders())
    finally:
        connection.close()


def test_health_needs_no_token_and_says_nothing(service: ServiceThread) -> None:
    status, body, _ = post(service, "/healthz", b"", role=None, method="GET")
    assert (status, body) == (200, b"ok\n")


@pytest.mark.parametrize("endpoint", wire.ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_every_call_asks_for_a_token(service: ServiceThread, endpoint: wire.Endpoint[Any, Any]) -> None:
    status, body, _ = post(service, endpoint.path, role=None)
    assert (status, body["kind"]) == (401, "Unauthenticated")


@pytest.mark.parametrize("endpoint", wire.ENDPOINTS, ids=lambda endpoint: endpoint.path)
@pytest.mark.parametrize("role", TOKENS)
def test_every_call_refuses_the_token_of_another_role(
    service: ServiceThread, endpoint: wire.Endpoint[Any, Any], role: wire.RoleName
) -> None:
    status, body, _ = post(service, endpoint.path, b"not json", role=role)
    if role in endpoint.roles:
        assert (status, body["kind"]) == (400, "UserError")
    else:
        assert (status, body["kind"]) == (403, "Unauthenticated")


@pytest.mark.parametrize("told", ["metadata", "store-master", "store-node", "producer"])
@pytest.mark.parametrize("role", ["producer", "store"])
def test_a_restart_is_told_with_the_token_of_the_role_that_it_is_about(
    service: ServiceThread, role: wire.RoleName, told: str
) -> None:
    reason = f"{told} told with the token of {role}"
    body = msgspec.json.encode({"role": told, "index": 0, "serial": 1, "time": 1.0, "reason": reason})
    status, answer, _ = post(service, wire.RESTART.path, body, role=role)
    if role == ("producer" if told == "producer" else "store"):
        assert status == 200
    else:
        assert (status, answer["kind"]) == (403, "Unauthenticated")
    incidents = post(service, STATUS, role="reader")[1]["incidents"]
    assert any(reason in incident["message"] for incident in incidents) == (status == 200)


@pytest.mark.parametrize("path", ["/", "/metrics", "/v1/none", "/v1/../healthz", "/v1/status/", "/v1/status?x=1"])
def test_nothing_but_health_is_served_without_a_token(service: ServiceThread, path: str) -> None:
    status, _, _ = post(service, path, b"", role=None, method="GET")
    assert status == 401


def test_an_unknown_path_is_told_apart_only_for_those_who_may_know(service: ServiceThread) -> None:
    status, body, _ = post(service, "/v1/none", b"")
    assert (status, body["kind"]) == (404, "UserError")


def test_metrics_are_for_readers_and_carry_bounded_labels(service: ServiceThread) -> None:
    assert post(service, "/metrics", b"", role="producer", method="GET")[0] == 403
    status, body, _ = post(service, "/metrics", b"", role="reader", method="GET")
    assert status == 200
    text = body.decode()
    for name in (
        "eyas_job_info",
        "eyas_store_resident_bytes",
        "eyas_samples_produced_total",
        "eyas_samples_acked_total",
        "eyas_samples_applied_twice_total",
        "eyas_queue_lag_samples",
        "eyas_metadata_request_duration_seconds_bucket",
    ):
        assert name in text, name
    assert "s-0000" not in text
    for line in text.splitlines():
        labels = line.partition("{")[2].partition("}")[0]
        names = {part.partition("=")[0] for part in labels.split(",") if part}
        assert names <= {"job", "call", "code", "reason", "phase", "store_epoch", "le"}, line


def test_unknown_paths_do_not_make_new_series(service: ServiceThread) -> None:
    for number in range(3):
        post(service, f"/v1/made-up-{number}", b"")
    _, body, _ = post(service, "/metrics", b"", role="reader", method="GET")
    assert b"made-up" not in body
    assert b'call="other"' in body


def test_every_answer_carries_the_store_epoch(service: ServiceThread) -> None:
    for path, role in ((STATUS, "reader"), (STATUS, None), ("/v1/none", "reader")):
        _, _, headers = post(service, path, role=role)  # type: ignore[arg-type]
        assert headers[wire.STORE_EPOCH_HEADER] == "1"


def test_a_get_is_refused(service: ServiceThread) -> None:
    assert post(service, STATUS, b"", method="GET")[0] == 405


def test_a_body_over_its_limit_is_refused_before_the_token_is_looked_at(service: ServiceThread) -> None:
    body = b" " * (wire.STATUS.body_bytes_max + 1)
    status, problem, _ = post(service, STATUS, body, role=None)
    assert status == 413
    assert str(wire.STATUS.body_bytes_max) in problem["message"]


def test_a_chunked_body_over_its_limit_is_refused_while_it_comes(service: ServiceThread) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=30.0) as raw:
        raw.sendall(
            f"POST {STATUS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS['reader']}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
        try:
            for _ in range(4):
                raw.sendall(chunk)
        except OSError:
            pass
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_body_that_is_not_well_formed_is_refused(service: ServiceThread) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=30.0) as raw:
        raw.sendall(
            f"POST {STATUS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS['reader']}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nnonsense\r\n".encode()
        )
        assert b" 400 " in raw.recv(4096).split(b"\r\n")[0]


def test_bodies_together_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODIES_BYTES_MAX", 100)
    with running_service(tmp_path) as service:
        head = f"POST {STATUS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS['reader']}\r\n"
        with socket.create_connection(("127.0.0.1", service.port), timeout=30.0) as slow:
            slow.sendall(f"{head}Content-Length: 99\r\n\r\n{{".encode())
            wait_until(lambda: post(service, STATUS)[0] == 503, "the slow body to take all the room")
        wait_until(lambda: post(service, STATUS)[0] == 200, "the room to be given back")


def test_a_caller_that_leaves_is_not_waited_for(service: ServiceThread) -> None:
    waiters = service.waiters
    request = wire.encode(wire.PreparedRequest(wait_seconds=wire.WAIT_SECONDS_MAX))
    with socket.create_connection(("127.0.0.1", service.port), timeout=30.0) as leaving:
        leaving.sendall(
            f"POST {wire.PREPARED.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS['consumer']}\r\n"
            f"Content-Length: {len(request)}\r\n\r\n".encode()
            + request
        )
        wait_until(lambda: waiters() == 1, "the long poll to wait")
    wait_until(lambda: waiters() == 0, "the wait to end", seconds=10.0)


def test_compressed_bodies_are_not_opened(service: ServiceThread) -> None:
    assert post(service, STATUS, headers={"Content-Encoding": "gzip"})[0] == 415


def test_too_many_headers_are_refused(service: ServiceThread) -> None:
    headers = {f"X-{number}": "1" for number in range(limits.HEADERS_MAX + 1)}
    assert post(service, STATUS, role=None, headers=headers)[0] == 400


@pytest.mark.parametrize(
    "headers",
    [{"X-Long": "a" * (limits.HEADER_BYTES_MAX + 100)}, {"Authorization": "Bearer " + "a" * 100_000}],
    ids=["any header", "the token"],
)
def test_a_header_that_is_too_long_is_refused(service: ServiceThread, headers: dict[str, str]) -> None:
    assert post(service, STATUS, role=None, headers=headers)[0] == 400


def test_a_request_line_that_is_too_long_is_refused(service: ServiceThread) -> None:
    assert post(service, "/" + "a" * (limits.LINE_BYTES_MAX + 100), role=None)[0] == 400


@pytest.mark.parametrize("epoch", ["x", "-1", "1.0", "9" * 12, "¹"])
def test_a_store_epoch_that_is_no_number_is_refused(service: ServiceThread, epoch: str) -> None:
    headers = {wire.STORE_EPOCH_HEADER: epoch}
    assert post(service, STATUS, headers={k: v.encode().decode("latin-1") for k, v in headers.items()})[0] == 400


@pytest.mark.parametrize(
    "hostile", ["../../etc/passwd", "s-1", "s-000000000001/..", "\x00", "a" * 300, "s-00000000000x"]
)
def test_ids_that_look_like_paths_are_refused_before_they_meet_anything(service: ServiceThread, hostile: str) -> None:
    body = {
        "holder": msgspec.to_builtins(HOLDER),
        "lease_id": "x",
        "token": "y",
        "refs": [
            {
                "sample_id": hostile, "sequence": 0, "key": hostile, "generation": 1, "digest": "d",
                "payload_digest": "p", "length": 1, "num_tokens": 1, "num_supervised": 1, "feature_specs": [],
            }
        ],
    }  # fmt: skip
    status, problem, _ = post(service, wire.COMMIT.path, json.dumps(body).encode(), role="producer")
    assert status in {400, 409, 412}
    assert problem["kind"] in {"UserError", "Conflict", "Fenced"}


def test_a_message_with_a_wrong_field_names_the_field(service: ServiceThread) -> None:
    status, problem, _ = post(service, wire.ORDER.path, b'{"incarnation": "x", "ordinal": "first"}')
    assert status == 400
    assert "ordinal" in problem["message"]


def test_a_slow_body_is_given_up(service: ServiceThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", service.port), timeout=30.0) as raw:
        raw.sendall(
            f"POST {STATUS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS['reader']}\r\n"
            "Content-Length: 10\r\n\r\n{".encode()
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 408")


def test_a_connection_that_never_says_anything_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr("eyas_runtime.metadata.service.run.CUT_SILENT_SECONDS", 0.0)
    with (
        running_service(tmp_path) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=30.0) as silent,
    ):
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1) == b""
        assert post(service, STATUS)[0] == 200


def test_connections_over_the_limit_are_cut_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 2)
    with running_service(tmp_path) as service:
        held = [socket.create_connection(("127.0.0.1", service.port), timeout=30.0) for _ in range(2)]
        request = (
            f"POST {STATUS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS['reader']}\r\n"
            "Content-Length: 2\r\n\r\n{}"
        )
        for each in held:
            each.sendall(request.encode())
            assert each.recv(65536).startswith(b"HTTP/1.1 200")
        with (
            socket.create_connection(("127.0.0.1", service.port), timeout=30.0) as third,
            contextlib.suppress(ConnectionResetError),
        ):
            assert third.recv(1) == b""
        held[0].sendall(request.encode())
        assert held[0].recv(65536).startswith(b"HTTP/1.1 200")
        for each in held:
            each.close()


def test_a_rotated_token_needs_no_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyas_runtime.metadata.service.auth.LOOK_SECONDS", 0.0)
    with running_service(tmp_path) as service:
        fresh = tmp_path / "secrets" / "fresh"
        fresh.write_text("n" * 43)
        os.replace(fresh, tmp_path / "secrets" / "reader.token")
        assert post(service, STATUS, role="reader")[0] == 401
        assert post(service, STATUS, role=None, headers={"Authorization": "Bearer " + "n" * 43})[0] == 200
