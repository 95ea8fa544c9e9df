"""What a caller may cost before anybody knows who it is: connections, headers, bytes, time.

Limits come before authentication and authentication before parsing. Every number is here, with its reason.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import web

from eyas_contract.errors import Transient

HEADERS_MAX: Final = 32
"""Our client sends seven."""
HEADER_BYTES_MAX: Final = 2048
"""The longest header is the bearer token."""
LINE_BYTES_MAX: Final = 512
"""The longest request line is that of `/v1/checkpoint-commit`."""
CONNECTIONS_MAX: Final = 4096
"""Ranks, supervisors and producers hold a few each; the rest is a mistake or an attack."""
BODY_SECONDS: Final = 20.0
"""From the end of the headers to the end of the body; 64 MiB at 4 MiB/s."""
SILENT_SECONDS: Final = 20.0
"""A connection that has not sent a complete request head for so long is cut."""
KEEP_ALIVE_SECONDS: Final = 120.0
"""Longer than the rhythm of heartbeats and polls, so that callers keep their connections."""
LINGER_SECONDS: Final = 1.0
"""How long a refused body is read on, so that the refusal reaches the caller."""
SHUTDOWN_SECONDS: Final = 2.0

SERVER_OPTIONS: Final[dict[str, Any]] = {
    "max_headers": HEADERS_MAX,
    "max_field_size": HEADER_BYTES_MAX,
    "max_line_size": LINE_BYTES_MAX,
    "keepalive_timeout": KEEP_ALIVE_SECONDS,
    "lingering_time": LINGER_SECONDS,
    "auto_decompress": False,
    "access_log": None,
}


BODIES_BYTES_MAX: Final = 256 << 20
"""Of all bodies that are being read; beyond it callers are told to come again, whoever they are."""


class BodyTooLarge(Exception):
    """The body is over the limit of its endpoint."""


class BodyBudget:
    """Memory that bodies may take together. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._taken = 0

    @contextmanager
    def reserve(self, nbytes: int) -> Iterator[None]:
        """Room for one body while it is read and decoded. Raises `Transient` when there is none."""
        if self._taken + nbytes > BODIES_BYTES_MAX:
            raise Transient("the metadata service is reading too many large messages", retry_after_seconds=1.0)
        self._taken += nbytes
        try:
            yield
        finally:
            self._taken -= nbytes


class LimitedServer(web.Server):
    """aiohttp's low-level server with a limit on connections and a stop-watch on silent ones."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        # A long poll whose caller has left is cancelled; a transaction that was begun is not.
        super().__init__(handler, handler_cancellation=True, **SERVER_OPTIONS)
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}
        self._silent_since: dict[web.RequestHandler, float] = {}
        self._refused = 0

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open[handler] = transport
        self._silent_since[handler] = asyncio.get_running_loop().time()
        if len(self._open) > CONNECTIONS_MAX:
            self._refused += 1
            transport.abort()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open.pop(handler, None)
        self._silent_since.pop(handler, None)

    def take_refused(self) -> int:
        """How many connections were refused since the last call."""
        refused, self._refused = self._refused, 0
        return refused

    def heard(self, handler: web.RequestHandler) -> None:
        """A complete request head came in on this connection; from here on aiohttp's own time-outs hold."""
        self._silent_since.pop(handler, None)

    def cut_silent(self) -> int:
        """Cut connections that never sent a request head in time; returns how many."""
        before = asyncio.get_running_loop().time() - SILENT_SECONDS
        late = [handler for handler, since in self._silent_since.items() if since < before]
        for handler in late:
            self._open[handler].abort()
            del self._silent_since[handler]
        return len(late)


async def read_body(request: web.BaseRequest, bytes_max: int) -> bytes:
    """The body, read to its end. Raises `BodyTooLarge` as soon as it is, `TimeoutError` after `BODY_SECONDS`."""
    if request.content_length is not None and request.content_length > bytes_max:
        raise BodyTooLarge
    parts: list[bytes] = []
    total = 0
    async with asyncio.timeout(BODY_SECONDS):
        async for part in request.content.iter_any():
            total += len(part)
            if total > bytes_max:
                raise BodyTooLarge
            parts.append(part)
    return b"".join(parts)
