"""Tunnels, commands and log streams into pods, against a server that speaks the API server's side of the protocol."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from eyas_contract.errors import Transient, UserError
from eyas_operator.backends.kubernetes.client import KubeClient
from eyas_operator.backends.kubernetes.connect import connect
from eyas_operator.backends.kubernetes.people import open_for_person
from eyas_operator.backends.kubernetes.sockets import PROTOCOL, execute, tunnel
from eyas_operator.errors import Refused

TOKEN = "t" * 32
PODS = "/api/v1/namespaces/ns/pods/{name}"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def channel(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=(PROTOCOL,))
    await socket.prepare(request)
    return socket


async def echo(request: web.Request) -> web.StreamResponse:
    """A pod whose port sends back what it gets; heads of both channels in pieces, as a slow network might."""
    socket = await channel(request)
    port = int(request.query["ports"]).to_bytes(2, "little")
    await socket.send_bytes(b"\0" + port[:1])
    await socket.send_bytes(b"\0" + port[1:] + b"hello ")
    await socket.send_bytes(b"\1" + port)
    async for message in socket:
        await socket.send_bytes(b"\0" + message.data[1:])
        if b"bye" in message.data:
            await socket.close()
    return socket


async def closed_port(request: web.Request) -> web.StreamResponse:
    socket = await channel(request)
    await socket.send_bytes(b"\1\0\0")
    await socket.send_bytes(b"\1connection refused")
    async for _ in socket:
        pass
    return socket


async def command(request: web.Request) -> web.StreamResponse:
    socket = await channel(request)
    words = request.query.getall("command")
    await socket.send_bytes(b"\1" + " ".join(words).encode())
    await socket.send_bytes(b"\2 and a warning")
    status = {"status": "Success"} if words[0] == "good" else {"status": "Failure", "message": "exit code 3"}
    await socket.send_bytes(b"\3" + json.dumps(status).encode())
    await socket.close()
    return socket


async def log(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    for piece in (b"one\ntw", b"o\n", b"last"):
        await answer.write(piece)
    return answer


async def forbidden(request: web.Request) -> web.StreamResponse:
    return web.json_response({"kind": "Status", "reason": "Forbidden", "message": "you may not"}, status=403)


@asynccontextmanager
async def cluster(tmp_path: Path, path: str, handler: Handler) -> AsyncIterator[KubeClient]:
    """A client of a server that answers `path`; it has to show its token."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        return await handler(request)

    application = web.Application()
    application.router.add_get(path, guarded)
    runner = web.AppRunner(application, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    client = KubeClient(await connect(kubeconfig(tmp_path, f"http://127.0.0.1:{port}")))
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def kubeconfig(tmp_path: Path, url: str, namespace: str = "ns") -> Path:
    contexts = [
        {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": namespace}},
        {"name": "bare", "context": {"cluster": "c", "user": "u"}},
    ]
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here", "contexts": contexts,
        "clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {"token": TOKEN}}],
    }  # fmt: skip
    file = tmp_path / "kubeconfig.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_a_tunnel_carries_bytes_both_ways_and_ends_with_the_pod(tmp_path: Path) -> None:
    async def whole() -> bytes:
        async with (
            cluster(tmp_path, PODS + "/portforward", echo) as client,
            tunnel(client, "ns", "pod", 7380) as end,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", end.port)
            writer.write(b"x" * 100_000 + b"bye")
            said = await reader.read(-1)
            writer.close()
            return said

    assert asyncio.run(whole()) == b"hello " + b"x" * 100_000 + b"bye"


def test_a_tunnel_to_a_closed_port_ends_the_connection_and_not_the_tunnel(tmp_path: Path) -> None:
    async def whole() -> list[bytes]:
        async with (
            cluster(tmp_path, PODS + "/portforward", closed_port) as client,
            tunnel(client, "ns", "pod", 1) as end,
        ):
            said = []
            for _ in range(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", end.port)
                said.append(await reader.read(-1))
                writer.close()
            assert end.problem == "connection refused"
            return said

    assert asyncio.run(whole()) == [b"", b""]


@pytest.mark.parametrize("part", ["portforward", "exec", "log"])
def test_who_may_not_is_refused_before_anything_is_opened(tmp_path: Path, part: str) -> None:
    async def whole() -> None:
        async with cluster(tmp_path, f"{PODS}/{part}", forbidden) as client:
            if part == "exec":
                await execute(client, "ns", "pod", ("good",))
            elif part == "log":
                async with client.stream("/api/v1/namespaces/ns/pods/pod/log", query={}):
                    pass
            else:
                async with tunnel(client, "ns", "pod", 1):
                    pass

    with pytest.raises(Refused):
        asyncio.run(whole())


def test_a_command_gives_its_output_or_says_how_it_failed(tmp_path: Path) -> None:
    async def whole(*words: str) -> str:
        async with cluster(tmp_path, PODS + "/exec", command) as client:
            return await execute(client, "ns", "pod", words)

    assert asyncio.run(whole("good", "a b")) == "good a b and a warning"
    with pytest.raises(UserError, match="exit code 3"):
        asyncio.run(whole("bad"))


def test_a_stream_is_read_as_it_comes(tmp_path: Path) -> None:
    async def whole() -> bytes:
        async with (
            cluster(tmp_path, PODS + "/log", log) as client,
            client.stream("/api/v1/namespaces/ns/pods/pod/log", query={"follow": "true"}) as content,
        ):
            return await content.read(-1)

    assert asyncio.run(whole()) == b"one\ntwo\nlast"


def test_no_server_is_a_sentence_that_may_heal(tmp_path: Path) -> None:
    async def whole() -> None:
        client = KubeClient(await connect(kubeconfig(tmp_path, "http://127.0.0.1:9")))
        try:
            async with tunnel(client, "ns", "pod", 1):
                pass
        finally:
            await client.close()

    with pytest.raises(Transient):
        asyncio.run(whole())


def test_the_namespace_is_that_of_the_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = kubeconfig(tmp_path, "http://127.0.0.1:9", namespace="mine")

    async def namespace(kubeconfig: str, context: str) -> str:
        client, chosen = await open_for_person(kubeconfig, context)
        await client.close()
        return chosen

    assert asyncio.run(namespace(str(file), "")) == "mine"
    assert asyncio.run(namespace(str(file), "bare")) == "default"
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'none'}:{file}")
    assert asyncio.run(namespace("", "")) == "mine"
    for wrong in ((str(file), "nowhere"), (str(tmp_path / "none"), "")):
        with pytest.raises(UserError, match="kubeconfig"):
            asyncio.run(namespace(*wrong))
