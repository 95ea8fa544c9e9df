"""A reverse proxy before the API server that can go deaf: streams stay open and bring nothing, all else works.

That is what a half-dead connection or a stalled load balancer looks like to an operator.
"""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp
from aiohttp import web

from support.kube_apiserver import KubeApiServer

_HOP: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})
BROKEN: Final = b'{"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd is gone"}}\n'


class WatchProxy:
    """Plain HTTP before the server's TLS; runs in a thread of its own."""

    def __init__(self, server: KubeApiServer) -> None:
        self._server = server
        self._deaf = threading.Event()
        self._failing = threading.Event()
        self._ready = threading.Event()
        self.port = 0
        self.swallowed = 0
        """Pieces of streams that were not handed on."""
        self.refused = 0
        """Streams that were answered as if their token were not valid any more."""
        self._refusals = 0
        self._open: set[asyncio.Task[object]] = set()
        self.streams = 0
        """Streams that were opened."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        assert self._ready.wait(30), "the proxy never began"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def go_deaf(self) -> None:
        """From now on streams bring nothing."""
        self._deaf.set()

    def refuse_streams(self, count: int) -> None:
        """Cut all streams, and answer the next `count` requests for one with 401."""
        self._refusals = count
        for task in list(self._open):
            self._loop.call_soon_threadsafe(task.cancel)

    def fail_streams(self) -> None:
        """From now on a stream that would bring something brings the server's word that it is broken."""
        self._failing.set()

    def close(self) -> None:
        """End all connections."""
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join(30)

    async def _run(self) -> None:
        self._loop, self._closed = asyncio.get_running_loop(), asyncio.Event()
        tls = ssl.create_default_context(cafile=str(self._server.ca_file))
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._forward)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, limit=0)) as self._session:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = int(runner.addresses[0][1])
            self._ready.set()
            await self._closed.wait()
            await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
        body = await request.read()
        stream = "watch" in request.query
        task = asyncio.current_task()
        if stream and self._refusals:
            self._refusals -= 1
            self.refused += 1
            return web.json_response({"kind": "Status", "code": 401, "message": "Unauthorized"}, status=401)
        if stream and task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        async with self._session.request(
            request.method,
            f"{self._server.url}{request.rel_url}",
            headers=headers,
            data=body or None,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP}
            reply = web.StreamResponse(status=answer.status, headers=kept)
            await reply.prepare(request)
            self.streams += stream
            async for piece in answer.content.iter_any():
                if stream and self._deaf.is_set():
                    self.swallowed += 1
                    continue
                await reply.write(BROKEN if stream and self._failing.is_set() else piece)
            await reply.write_eof()
            return reply


@contextmanager
def watch_proxy(server: KubeApiServer) -> Iterator[WatchProxy]:
    """A proxy that ends with the block."""
    proxy = WatchProxy(server)
    try:
        yield proxy
    finally:
        proxy.close()
