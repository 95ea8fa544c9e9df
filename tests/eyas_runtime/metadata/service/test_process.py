"""Claims about the process: how it starts, how it ends, and with which code and sentence."""

import os
import socket
from pathlib import Path

import msgspec
import pytest
import urllib3

from eyas_contract import env, wire
from eyas_contract.errors import Fenced, Transient, UserError
from eyas_runtime.features.config import open_blobs
from eyas_runtime.metadata.service import listen
from eyas_runtime.metadata.service.settings import read_settings
from support.metadata_service import (
    ServiceProcess,
    ServiceThread,
    client_of,
    free_port,
    job_config,
    lay_out,
    running_service,
    store_of,
)
from support.small_job import Rank, producer_of
from support.waiting import wait_until

pytestmark = pytest.mark.slow


def log_of(folder: Path) -> str:
    return (folder / "service.log").read_text()


def port_of(process_config: object) -> int:
    return int(process_config.endpoints.metadata_url.rpartition(":")[2])  # type: ignore[attr-defined]


def train_to_the_end(folder: Path, port: int) -> None:
    """A whole job, and an object that a dead producer left."""
    blobs = open_blobs(store_of(folder, job_config(folder)))
    producer = producer_of(folder, port, deadline_seconds=None)
    producer.prepare([8] * 8)
    producer.produce()
    rank = Rank(client_of(folder, port, "consumer"))
    rank.reconcile()
    assert rank.run()
    # Something that no row knows: a producer put it and died before the commit.
    blobs.put("eyas.testjob0.e1.g999." + "a" * 32, b"orphan")
    blobs.close()


def test_sigterm_ends_an_unfinished_job_with_143_and_the_next_start_goes_on(tmp_path: Path) -> None:
    config = job_config(tmp_path, port=free_port())
    service = ServiceProcess(tmp_path, config).wait_ready()
    producer_of(tmp_path, port_of(config)).prepare([8] * 8)
    assert service.terminate() == 143
    again = ServiceProcess(tmp_path, config).wait_ready()
    assert client_of(tmp_path, port_of(config), "reader").status().total_samples == 8
    assert again.terminate() == 143


def test_sigterm_after_the_end_leaves_nothing_in_the_pool_and_exits_0(tmp_path: Path) -> None:
    config = job_config(tmp_path, port=free_port())
    service = ServiceProcess(tmp_path, config).wait_ready()
    train_to_the_end(tmp_path, port_of(config))
    assert client_of(tmp_path, port_of(config), "reader").status().phase == "Complete"
    assert service.terminate() == 0
    left = [
        path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.name.startswith("eyas.testjob0")
    ]
    assert left == []


def test_a_complete_job_still_answers(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        train_to_the_end(tmp_path, service.port)
        for _ in range(3):
            assert client_of(tmp_path, service.port, "reader").status().phase == "Complete"
    assert service.code == 0


def test_a_killed_service_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    config = job_config(tmp_path, port=free_port())
    service = ServiceProcess(tmp_path, config).wait_ready()
    producer = producer_of(tmp_path, port_of(config), deadline_seconds=None)
    rank = Rank(client_of(tmp_path, port_of(config), "consumer", deadline_seconds=None))
    producer.prepare([8] * 8)
    lease = producer.must_lease()
    service.kill()
    service = ServiceProcess(tmp_path, config).wait_ready()
    assert producer.commit(lease) == (0, 1)
    producer.produce()
    rank.reconcile()
    while not rank.run(3):
        service.kill()
        service = ServiceProcess(tmp_path, config).wait_ready()
    audit = client_of(tmp_path, port_of(config), "reader").audit()
    assert (audit.trained_once, audit.trained_twice, audit.missing) == (8, 0, 0)
    assert service.terminate() == 0


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        pytest.param("secrets/producer.token", "producer.token", id="no token"),
        pytest.param("secrets/receipt.key", "receipt.key", id="no receipt key"),
        pytest.param("job.json", "job.json", id="no configuration"),
    ],
)
def test_a_missing_file_is_one_sentence_and_78(tmp_path: Path, broken: str, sentence: str) -> None:
    config = job_config(tmp_path, port=free_port())
    variables = {env.TERMINATION_LOG: str(tmp_path / "termination")}
    service = ServiceProcess(tmp_path, config, without=broken, **variables)
    assert service.process.wait(60.0) == 78
    termination = msgspec.json.decode((tmp_path / "termination").read_bytes(), type=wire.Termination)
    assert sentence in termination.message
    assert termination.exit_code == 78
    assert "Traceback" not in log_of(tmp_path)


@pytest.mark.parametrize(
    "name", [env.CONFIG_FILE, env.TOKEN_DIRECTORY, env.METADATA_DIRECTORY, env.HOST_ADDRESS], ids=str.lower
)
def test_a_missing_variable_is_named(tmp_path: Path, name: str) -> None:
    variables = lay_out(tmp_path, job_config(tmp_path))
    del variables[name]
    with pytest.raises(UserError, match=name):
        read_settings(variables)


@pytest.mark.parametrize(
    ("name", "value"),
    [(env.CHECKPOINT_STEP, "x"), (env.JOB_UID, "otherjobb"), (env.METADATA_DIRECTORY, "/does/not/exist")],
)
def test_a_wrong_variable_is_named(tmp_path: Path, name: str, value: str) -> None:
    variables = {**lay_out(tmp_path, job_config(tmp_path)), name: value}
    with pytest.raises(UserError, match=name):
        read_settings(variables)


def test_the_settings_do_not_print_the_receipt_key(tmp_path: Path) -> None:
    settings = read_settings(lay_out(tmp_path, job_config(tmp_path)))
    assert "kkkk" not in repr(settings)
    assert "kkkk" not in str(settings)


def test_an_address_that_somebody_else_keeps_is_a_sentence_and_75(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "BIND_SECONDS", 0.0)
    config = job_config(tmp_path, port=free_port())
    with (
        socket.create_server(("127.0.0.1", port_of(config))),
        pytest.raises(Transient, match="another program") as caught,
    ):
        ServiceThread(read_settings(lay_out(tmp_path, config)), bind_itself=True)
    assert caught.value.exit_code == 75


def test_an_address_that_is_not_ours_is_the_users_error(tmp_path: Path) -> None:
    config = job_config(tmp_path, port=free_port())
    settings = msgspec.structs.replace(read_settings(lay_out(tmp_path, config)), host="192.0.2.1")
    with pytest.raises(UserError, match=r"192\.0\.2\.1"):
        ServiceThread(settings, bind_itself=True)


def test_in_a_pod_a_tunnel_finds_the_service_on_loopback_and_must_show_a_token_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "tunnel_end", lambda host: "127.83.7.7")
    config = job_config(tmp_path, port=free_port())
    service = ServiceThread(read_settings(lay_out(tmp_path, config)), bind_itself=True)
    try:
        for host in ("127.0.0.1", "127.83.7.7"):
            place = f"{host}:{port_of(config)}"
            assert urllib3.request("GET", f"http://{place}/healthz", retries=False).status == 200
            assert urllib3.request("POST", f"http://{place}/v1/status", body=b"{}", retries=False).status == 401
    finally:
        service.stop()


@pytest.mark.parametrize(
    ("host", "end"),
    [("10.1.2.3", "127.0.0.1"), ("fd00::7", "::1"), ("127.83.1.1", None), ("::1", None), ("::", None)],
)
def test_a_tunnel_ends_on_loopback_unless_the_service_is_there_already(host: str, end: str | None) -> None:
    assert listen.tunnel_end(host) == end


def test_the_address_of_a_killed_predecessor_is_free_at_once(tmp_path: Path) -> None:
    config = job_config(tmp_path, port=free_port())
    for _ in range(3):
        service = ServiceProcess(tmp_path, config).wait_ready()
        client_of(tmp_path, port_of(config), "reader").status()
        service.kill()


def test_a_database_that_vanishes_ends_the_service_before_it_says_committed(tmp_path: Path) -> None:
    config = job_config(tmp_path, port=free_port())
    service = ServiceProcess(tmp_path, config).wait_ready()
    producer = producer_of(tmp_path, port_of(config), deadline_seconds=2.0)
    producer.prepare([8] * 8)
    lease = producer.must_lease()
    os.unlink(tmp_path / "metadata" / "metadata.sqlite")
    with pytest.raises(Transient):
        producer.commit(lease)
    assert service.process.wait(60.0) == 75


def test_hazard_33_a_service_ends_when_a_trusted_caller_has_seen_a_newer_epoch(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        client = client_of(tmp_path, service.port, "reader", deadline_seconds=1.0, store_epoch=2)
        # The client believes no service of an older epoch, not even in what it refuses.
        with pytest.raises(Transient):
            client.status()
        service.ended()
    assert isinstance(service.error, Fenced)
    assert service.error.exit_code == 86


def test_hazard_33_a_producer_cannot_end_the_service_by_claiming_a_newer_epoch(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        client = client_of(tmp_path, service.port, "producer", deadline_seconds=0.2, store_epoch=2)
        with pytest.raises(Transient):
            client.lease(wire.LeaseRequest(holder=wire.Holder(index=0, ordinal=0, restart=0), request_id="r"))
        assert client_of(tmp_path, service.port, "reader").status().store_epoch == 1


def test_two_services_cannot_own_one_database(tmp_path: Path) -> None:
    with running_service(tmp_path):
        config = job_config(tmp_path, port=free_port())
        with pytest.raises(Transient):
            ServiceThread(read_settings(lay_out(tmp_path, config)))


def test_a_long_poll_does_not_delay_the_end(tmp_path: Path) -> None:
    config = job_config(tmp_path, port=free_port())
    service = ServiceProcess(tmp_path, config).wait_ready()
    request = wire.encode(wire.PreparedRequest(wait_seconds=wire.WAIT_SECONDS_MAX))
    with socket.create_connection(("127.0.0.1", port_of(config))) as raw:
        raw.sendall(
            f"POST {wire.PREPARED.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {'c' * 43}\r\n"
            f"Content-Length: {len(request)}\r\n\r\n".encode()
            + request
        )
        wait_until(lambda: client_of(tmp_path, port_of(config), "reader").status(), "an answer")
        assert service.terminate() == 143
        assert raw.recv(65536).startswith(b"HTTP/1.1 200")
