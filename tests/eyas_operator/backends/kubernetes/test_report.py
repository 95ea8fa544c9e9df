"""The operator's question to a real metadata service: answered with a derived token, or it is no report."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from eyas_contract import env, wire
from eyas_contract.wire import StatusReply
from eyas_operator.backends.kubernetes import report
from eyas_operator.backends.kubernetes.keys import OperatorKeys
from eyas_operator.backends.kubernetes.opening import metadata_url
from eyas_operator.backends.kubernetes.report import SILENT_SECONDS, Reports
from eyas_operator.names import JobIdentity
from eyas_operator.world import Metadata, Pod, PodStatus
from support import metadata_service
from support.metadata_service import UID, free_port, job_config, running_service

SAMPLED = JobIdentity(namespace="default", name="test", uid=str(UID))


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OperatorKeys:
    """The operator's key; services of this test accept what derives from it."""
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "current").write_text("k" * 64)
    known = OperatorKeys(folder)
    monkeypatch.setitem(metadata_service.TOKENS, "reader", "\n".join(known.tokens(env.TOKEN_READER, str(UID))))
    return known


def pod(port: int) -> Pod:
    """The pod of a service that listens on `port`, told by its name."""
    return Pod(metadata=Metadata(name=str(port), uid=f"uid-{port}"), status=PodStatus(pod_ip="127.0.0.1"))


def opened(keys: OperatorKeys, clock: Callable[[], float] = lambda: 0.0) -> Reports:
    """A reader of the pods that `pod` makes."""
    return Reports(keys, lambda pod: f"http://{pod.status.pod_ip}:{pod.metadata.name}", clock)


def ask(keys: OperatorKeys, *ports: int) -> list[StatusReply | None]:
    """One reader asks the service at each port in turn."""

    async def inside() -> list[StatusReply | None]:
        reports = opened(keys)
        try:
            return [await reports.read(SAMPLED, pod(port)) for port in ports]
        finally:
            await reports.close()

    return asyncio.run(inside())


def stale_after(keys: OperatorKeys, port: int) -> bool:
    """Whether one question shows that the service knows another key than the present one."""

    async def inside() -> bool:
        reports = opened(keys)
        try:
            await reports.read(SAMPLED, pod(port))
            return reports.stale(SAMPLED)
        finally:
            await reports.close()

    return asyncio.run(inside())


def test_service_that_knows_the_derived_token_is_read(tmp_path: Path, keys: OperatorKeys) -> None:
    with running_service(tmp_path / "service") as service:
        (found,) = ask(keys, service.port)
    assert found is not None
    assert found.job_uid == UID


def test_service_that_has_not_learnt_a_rotated_key_is_read_by_the_previous_one(
    tmp_path: Path, keys: OperatorKeys
) -> None:
    with running_service(tmp_path / "service") as service:
        assert not stale_after(keys, service.port)
        (tmp_path / "keys" / "previous").write_text("k" * 64)
        (tmp_path / "keys" / "current").write_text("n" * 64)
        (found,) = ask(keys, service.port)
        assert stale_after(keys, service.port), "it has to be told the new one before that is the previous one"
    assert found is not None


def test_service_that_refuses_the_token_gives_no_report(tmp_path: Path, keys: OperatorKeys) -> None:
    with running_service(tmp_path / "service") as service:
        (tmp_path / "keys" / "current").write_text("another" * 10)
        assert ask(keys, service.port) == [None]
        assert stale_after(keys, service.port)


def test_service_of_another_job_gives_no_report(tmp_path: Path, keys: OperatorKeys) -> None:
    other = msgspec.structs.replace(job_config(tmp_path / "service"), job_uid="otherjob")
    with running_service(tmp_path / "service", other) as service:
        assert ask(keys, service.port) == [None]


def test_nobody_there_gives_no_report(keys: OperatorKeys) -> None:
    port = free_port()
    assert ask(keys, port) == [None]
    assert not stale_after(keys, port), "who does not answer refuses nothing"


def test_service_that_never_answers_is_not_waited_for(keys: OperatorKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "REPORT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert ask(keys, silent.getsockname()[1]) == [None]


def test_pod_that_let_a_call_time_out_is_left_alone_for_a_while(
    keys: OperatorKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "REPORT_SECONDS", 0.1)
    assert asyncio.run(_calls(keys, 0.0, 0.1, SILENT_SECONDS - 0.1)) == {"silent": 1, "refusing": 3}
    assert asyncio.run(_calls(keys, 0.0, SILENT_SECONDS, SILENT_SECONDS + 0.1)) == {"silent": 2, "refusing": 3}


async def _calls(keys: OperatorKeys, *times: float) -> dict[str, int]:
    """How often each of two pods was called by one reader who looked at both at these times."""
    calls = {"silent": 0, "refusing": 0}
    waiting = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls["silent"] += 1
        await waiting.wait()
        writer.close()

    async def refusing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls["refusing"] += 1
        writer.close()

    now = [0.0]
    first, second = [await asyncio.start_server(handle, "127.0.0.1", 0) for handle in (silent, refusing)]
    async with first, second:
        reports = opened(keys, lambda: now[0])
        try:
            for now[0] in times:
                for server in (first, second):
                    assert await reports.read(SAMPLED, pod(server.sockets[0].getsockname()[1])) is None
        finally:
            waiting.set()
            await reports.close()
    return calls


def test_pod_without_an_address_is_not_asked(keys: OperatorKeys) -> None:
    def url(_pod: Pod) -> str:
        raise AssertionError("there is nobody to ask")

    async def inside() -> StatusReply | None:
        reports = Reports(keys, url, lambda: 0.0)
        try:
            return await reports.read(SAMPLED, Pod(metadata=Metadata(name="new", uid="new")))
        finally:
            await reports.close()

    assert asyncio.run(inside()) is None


@pytest.mark.parametrize(("address", "host"), [("10.1.2.3", "10.1.2.3"), ("fd00::7", "[fd00::7]")])
def test_pod_is_asked_at_its_own_address(address: str, host: str) -> None:
    metadata = b'{"metadata":{"name":"m","uid":"m"},"status":{"phase":"Running","podIP":"%s"}}' % address.encode()
    assert metadata_url(msgspec.json.decode(metadata, type=Pod)) == f"http://{host}:{env.METADATA_PORT}"


def test_answer_of_an_older_epoch_than_was_seen_is_none(tmp_path: Path, keys: OperatorKeys) -> None:
    newer = job_config(tmp_path / "newer", store_epoch=2)
    with running_service(tmp_path / "newer", newer) as new, running_service(tmp_path / "older") as old:
        first, second = ask(keys, new.port, old.port)
    assert first is not None
    assert first.store_epoch == 2
    assert second is None


def test_predecessor_that_nobody_could_stop_is_not_believed(tmp_path: Path, keys: OperatorKeys) -> None:
    newer = job_config(tmp_path / "newer", store_epoch=2)
    with running_service(tmp_path / "newer", newer) as service:
        (said,) = ask(keys, service.port)
    assert said is not None
    body = wire.encode(msgspec.structs.replace(said, store_epoch=1))

    def answer(epoch: int) -> bytes:
        head = f"HTTP/1.1 200 OK\r\n{wire.STORE_EPOCH_HEADER}: {epoch}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    believed = asyncio.run(_answered(keys, answer(2), answer(1)))
    assert [found is not None for found in believed] == [True, False]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"\x00" * 64])
def test_nonsense_gives_no_report(keys: OperatorKeys, answer: bytes) -> None:
    assert asyncio.run(_answered(keys, answer)) == [None]


async def _answered(keys: OperatorKeys, *answers: bytes) -> list[StatusReply | None]:
    """One reader asks a server that gives these raw answers, one to each connection."""
    rest = iter(answers)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(next(rest))
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reports = opened(keys)
        try:
            return [await reports.read(SAMPLED, pod(port)) for _ in answers]
        finally:
            await reports.close()
