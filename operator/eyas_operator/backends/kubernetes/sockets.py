"""What people's tools do inside a pod, through the API server: a tunnel to one of its ports, a command in it.

The operator does neither and has no right to. Both are WebSockets of numbered channels: the first byte of a message
says which. A tunnel has data on channel 0 and errors on channel 1, and each begins with the port in two bytes; a
command has its output on 1 and 2, and how it ended, as a Status, on 3.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
import msgspec

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import EyasError, Transient, UserError
from eyas_operator import names
from eyas_operator.backends.kubernetes.client import KubeClient
from eyas_operator.backends.kubernetes.resources import PODS

PROTOCOL: Final = "v4.channel.k8s.io"
CHUNK: Final = 32 << 10
OUTPUT_BYTES_MAX: Final = 64 << 10
COMMAND_SECONDS: Final = 20.0
_DATA, _ERROR, _STATUS = 0, 1, 3
_PORT_BYTES: Final = 2


class _Ended(msgspec.Struct):
    status: str = ""
    message: str = ""


@dataclass(slots=True)
class Tunnel:
    """One end of a tunnel."""

    port: int = 0
    """On this machine's loopback."""
    problem: str = ""
    """Why the last connection that could not be carried through ended."""


@asynccontextmanager
async def tunnel(client: KubeClient, namespace: str, pod: str, port: int) -> AsyncIterator[Tunnel]:
    """A local port, on loopback, whose connections end at `port` of the pod as long as the block runs.

    A connection that cannot be carried through is closed. Raises `Refused` when this user may not.
    """
    path = f"{PODS.item(namespace, pod)}/portforward"
    end = Tunnel()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with client.socket(path, query=[("ports", str(port))], protocol=PROTOCOL) as channel:
                await _carry(channel, reader, writer)
        except (EyasError, OSError, aiohttp.ClientError) as error:
            # The caller sees its connection end; whether that heals is for it to find out.
            end.problem = str(error)
        finally:
            writer.close()

    async with client.socket(path, query=[("ports", str(port))], protocol=PROTOCOL):
        pass
    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    async with server:
        end.port = int(server.sockets[0].getsockname()[1])
        yield end


async def _carry(
    channel: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Both directions until one ends."""
    ways = (asyncio.create_task(_upwards(channel, reader)), asyncio.create_task(_downwards(channel, writer)))
    done, rest = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*ways, return_exceptions=True)
    # The pod's side knows the reason; ours only that the connection is gone.
    for task in sorted(done, key=ways.index, reverse=True):
        task.result()


async def _upwards(channel: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(CHUNK):
        await channel.send_bytes(bytes([_DATA]) + data)


async def _downwards(channel: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    heads = {_DATA: _PORT_BYTES, _ERROR: _PORT_BYTES}
    async for message in channel:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        number, data = message.data[0], message.data[1:]
        skipped = min(heads.get(number, 0), len(data))
        heads[number] = heads.get(number, 0) - skipped
        data = data[skipped:]
        if number == _ERROR and data:
            raise Transient(data[:600].decode(errors="replace"))
        if number == _DATA and data:
            writer.write(data)
            await writer.drain()


async def execute(client: KubeClient, namespace: str, pod: str, command: tuple[str, ...]) -> str:
    """Run a command in the pod's container; its output.

    Raises `UserError` when it fails, `Refused` when this user may not, `Transient` when it takes too long.
    """
    query = [("command", word) for word in command]
    query += [("container", names.CONTAINER), ("stdout", "true"), ("stderr", "true")]
    output, ended = b"", _Ended()
    try:
        async with (
            asyncio.timeout(COMMAND_SECONDS),
            client.socket(f"{PODS.item(namespace, pod)}/exec", query=query, protocol=PROTOCOL) as channel,
        ):
            async for message in channel:
                if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                    continue
                if message.data[0] == _STATUS:
                    ended = msgspec.json.decode(message.data[1:], type=_Ended)
                elif len(output) < OUTPUT_BYTES_MAX:
                    output += message.data[1:]
    except TimeoutError as error:
        raise Transient(f"the command in {pod} did not end within {COMMAND_SECONDS:g} s") from error
    except UNDECODABLE as error:
        raise Transient(f"the command in {pod} ended in an unknown way: {error}") from error
    text = output.decode(errors="replace")
    if ended.status != "Success":
        raise UserError(f"the command in {pod} failed: {ended.message} {text.strip()[:300]}")
    return text
