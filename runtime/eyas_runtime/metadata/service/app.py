"""The HTTP front: limits, then who calls, then what they say; then the store's thread; then the answer.

Built from `wire.ENDPOINTS`; nothing else is served but `/healthz` (open: the loop turns) and `/metrics` (read token).
Every answer carries the store epoch. A caller that has seen a higher epoch is told `Fenced`, and when it is one that
we trust to know (the operator's reader, a consumer) this service ends: its successor has taken over.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec
from aiohttp import hdrs, web

from eyas_contract import wire
from eyas_contract.errors import (
    Closed,
    Conflict,
    EyasError,
    Fenced,
    Transient,
    Unauthenticated,
    UserError,
)
from eyas_runtime.metadata.service.auth import Tokens
from eyas_runtime.metadata.service.job import Job
from eyas_runtime.metadata.service.limits import BodyBudget, BodyTooLarge, LimitedServer, read_body
from eyas_runtime.metadata.service.routes import ROUTES, Route
from eyas_runtime.metadata.service.waiting import Waiting
from eyas_runtime.metadata.service.worker import Worker

_log: Final = logging.getLogger(__name__)
HEALTH_PATH: Final = "/healthz"
METRICS_PATH: Final = "/metrics"
UNKNOWN_BODY_BYTES_MAX: Final = 0
"""A path that is not ours takes no body."""
CALL_SECONDS_MAX: Final = 60.0
"""One look at the store, waiting behind others included; a long poll is many looks."""
MESSAGE_CHARACTERS_MAX: Final = 2000
_Kind = Literal["UserError", "Transient", "Conflict", "Fenced", "Closed", "Unauthenticated", "Bug"]
_KINDS: Final[tuple[tuple[type[EyasError], _Kind, int], ...]] = (
    (Unauthenticated, "Unauthenticated", 401),
    (Conflict, "Conflict", 409),
    (Closed, "Closed", 410),
    (Fenced, "Fenced", 412),
    (Transient, "Transient", 503),
    (UserError, "UserError", 400),
)
"""Kind and HTTP status of each class; everything else is a bug."""


class Refusal(Exception):
    """An answer that is given before the call is known to be good."""

    def __init__(self, status: int, error: EyasError, *, close: bool = False) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error
        self.close = close
        """The rest of the request was not read: this connection cannot be used again."""


class Front:
    """Answers HTTP requests. `on_deposed` is called when a trusted caller proves that a newer service exists;
    `observe(call, status, seconds)` after each answer; `render_metrics` makes the text of `/metrics`."""

    def __init__(
        self,
        *,
        job: Callable[[], Job],
        worker: Worker,
        waiting: Waiting,
        tokens: Tokens,
        store_epoch: int,
        on_deposed: Callable[[int], None],
        observe: Callable[[str, int, float], None],
        render_metrics: Callable[[], bytes],
    ) -> None:
        self._job = job
        self._worker = worker
        self._waiting = waiting
        self._tokens = tokens
        self._epoch = store_epoch
        self._on_deposed = on_deposed
        self._observe = observe
        self._render_metrics = render_metrics
        self._headers = {wire.STORE_EPOCH_HEADER: str(store_epoch), hdrs.CACHE_CONTROL: "no-store", hdrs.SERVER: "eyas"}
        self._budget = BodyBudget()
        self.server: LimitedServer | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; every outcome, refusals included, becomes a response."""
        if self.server is not None:
            self.server.heard(request.protocol)
        began = time.perf_counter()
        try:
            response = await self._handle(request)
        except Refusal as refusal:
            response = self._problem(refusal.error, refusal.status)
            if refusal.close:
                response.force_close()
        except EyasError as error:
            response = self._problem(error)
        name = request.path if request.path in ROUTES or request.path in (HEALTH_PATH, METRICS_PATH) else "other"
        self._observe(name, response.status, time.perf_counter() - began)
        return response

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        if request.path == HEALTH_PATH:
            return web.Response(text="ok\n", headers=self._headers)
        route = ROUTES.get(request.path)
        bytes_max = UNKNOWN_BODY_BYTES_MAX if route is None else route.endpoint.body_bytes_max
        _check_size(request, bytes_max)
        roles = self._authenticate(request)
        self._check_epoch(request, roles)
        if request.path == METRICS_PATH and request.method == hdrs.METH_GET:
            if "reader" not in roles:
                raise Refusal(403, Unauthenticated("this token may not read metrics"))
            return await self._metrics()
        if route is None:
            raise Refusal(404, UserError("the metadata service has no such path"), close=True)
        if request.method != hdrs.METH_POST:
            raise Refusal(405, UserError("every call is a POST"), close=True)
        if not roles & route.endpoint.roles:
            raise Refusal(403, Unauthenticated(f"this token may not call {request.path}"), close=True)
        with self._budget.reserve(bytes_max if request.content_length is None else request.content_length):
            message = wire.decode(await _body(request, bytes_max), route.endpoint.request, bytes_max=bytes_max)
        if not route.permits(message, roles):
            raise Refusal(403, Unauthenticated(f"this token may not say that to {request.path}"))
        reply = await self._answer(route, message)
        return web.Response(body=wire.encode(reply), headers=self._headers, content_type="application/json")

    def _authenticate(self, request: web.BaseRequest) -> frozenset[wire.RoleName]:
        roles = self._tokens.roles(request.headers.get(hdrs.AUTHORIZATION, ""), now=time.monotonic())
        if not roles:
            raise Refusal(401, Unauthenticated("the bearer token is missing or wrong"), close=True)
        return roles

    def _check_epoch(self, request: web.BaseRequest, roles: frozenset[wire.RoleName]) -> None:
        text = request.headers.get(wire.STORE_EPOCH_HEADER, "0")
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise Refusal(400, UserError(f"{wire.STORE_EPOCH_HEADER} must be a number"), close=True)
        if int(text) > self._epoch:
            if roles & {"consumer", "reader"}:
                self._on_deposed(int(text))
            raise Refusal(412, Fenced(f"store epoch {self._epoch} is over: epoch {text} was seen"), close=True)

    async def _answer(self, route: Route[Any, Any], message: msgspec.Struct) -> msgspec.Struct:
        """One look at the state; for a long poll without news, one more whenever something has changed."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + min(float(getattr(message, "wait_seconds", 0.0)), wire.WAIT_SECONDS_MAX)
        while True:
            seen = 0 if route.topic is None else self._waiting.counter(route.topic)
            reply = await self._look(route, message)
            left = ends - loop.time()
            if route.topic is None or route.settled(reply) or left <= 0:
                return reply
            if not await self._waiting.until_changed(route.topic, seen, seconds=left):
                return reply

    async def _look(self, route: Route[Any, Any], message: msgspec.Struct) -> msgspec.Struct:
        def answer() -> msgspec.Struct:
            reply: msgspec.Struct = route.answer(self._job(), message)
            return reply

        try:
            async with asyncio.timeout(CALL_SECONDS_MAX):
                return await self._worker.run(answer)
        except TimeoutError:
            raise Transient("the metadata store did not answer in time", retry_after_seconds=1.0) from None

    async def _metrics(self) -> web.Response:
        text = await self._worker.run(self._render_metrics)
        return web.Response(body=text, headers={**self._headers, hdrs.CONTENT_TYPE: "text/plain; version=0.0.4"})

    def _problem(self, error: EyasError, status: int | None = None) -> web.Response:
        kind, usual = _kind_of(error)
        problem = wire.Problem(
            kind=kind,
            message=str(error)[:MESSAGE_CHARACTERS_MAX],
            retry_after_seconds=error.retry_after_seconds if isinstance(error, Transient) else 0.0,
        )
        return web.Response(
            body=wire.encode(problem), status=status or usual, headers=self._headers, content_type="application/json"
        )


def _check_size(request: web.BaseRequest, bytes_max: int) -> None:
    if hdrs.CONTENT_ENCODING in request.headers:
        raise Refusal(415, UserError("compressed bodies are not read"), close=True)
    if request.content_length is not None and request.content_length > bytes_max:
        raise Refusal(413, UserError(f"a body of {request.content_length} bytes is over {bytes_max}"), close=True)


async def _body(request: web.BaseRequest, bytes_max: int) -> bytes:
    try:
        return await read_body(request, bytes_max)
    except BodyTooLarge:
        raise Refusal(413, UserError(f"the body is over {bytes_max} bytes"), close=True) from None
    except web.RequestPayloadError:
        raise Refusal(
            400, UserError("the body is not the HTTP message that its headers announce"), close=True
        ) from None
    except TimeoutError:
        raise Refusal(408, Transient("the body did not arrive in time"), close=True) from None


def _kind_of(error: EyasError) -> tuple[_Kind, int]:
    return next(((kind, status) for klass, kind, status in _KINDS if isinstance(error, klass)), ("Bug", 500))
