"""A proxy before the API server that answers wrongly, or cuts the connection, as often as a test says.

It runs in the event loop of the operator under test and speaks plain HTTP on a loopback port.
"""

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import aiohttp
from aiohttp import web

from support.kube_apiserver import KubeApiServer

Fault = int | Literal["cut before", "cut after"] | None
"""An HTTP status instead of the answer; or a cut before the request is passed on, or after it was done."""
Plan = Callable[[str, str], Fault]
"""(verb, path with query) -> what goes wrong with this request."""
REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}


def never(_verb: str, _path: str) -> Fault:
    return None


class FaultyApi:
    """The proxy; `plan` may be replaced at any time."""

    def __init__(self, server: KubeApiServer, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session
        self.plan: Plan = never
        self.url = ""
        self.faults = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass on one request, or not."""
        fault = self.plan(request.method, request.path_qs)
        self.faults += fault is not None
        if isinstance(fault, int):
            return self._refusal(fault)
        if fault == "cut before":
            return self._cut(request)
        kept = ("Authorization", "Content-Type", "Accept")
        headers = {name: request.headers[name] for name in kept if name in request.headers}
        body = await request.read()
        async with self._session.request(
            request.method, f"{self._server.url}{request.raw_path}", headers=headers, data=body or None
        ) as answer:
            raw = await answer.read()
            if fault == "cut after":
                return self._cut(request)
            return web.Response(status=answer.status, body=raw, content_type="application/json")

    @staticmethod
    def _refusal(status: int) -> web.Response:
        details = {"retryAfterSeconds": 1} if status in (429, 503) else {}
        body = {"kind": "Status", "status": "Failure", "code": status, "reason": REASONS[status], "details": details}
        return web.Response(status=status, body=json.dumps(body), content_type="application/json")

    @staticmethod
    def _cut(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


@asynccontextmanager
async def faulty_api(server: KubeApiServer) -> AsyncIterator[FaultyApi]:
    """A proxy for the time of a `with` block."""
    context = ssl.create_default_context(cafile=str(server.ca_file))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), trust_env=False) as session:
        proxy = FaultyApi(server, session)
        runner = web.ServerRunner(web.Server(proxy.handle))
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            proxy.url = f"http://{host}:{port}"
            yield proxy
        finally:
            await runner.cleanup()
