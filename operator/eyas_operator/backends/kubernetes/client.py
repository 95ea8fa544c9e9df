"""`KubeClient`: one request to the API server and its raw answer. Every request is counted and bounded in time.

Nothing is repeated here: an unknown outcome is the caller's `Transient`, and the next pass repairs it.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException

from eyas_contract.errors import Transient
from eyas_operator.backends.kubernetes.connect import connect
from eyas_operator.backends.kubernetes.errors import problem_of
from eyas_operator.names import FIELD_MANAGER
from eyas_operator.world import Manifest

JSON: Final = "application/json"
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
REQUEST_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 3.0
_AWAY_SECONDS: Final = 1.0


def _uncounted(_verb: str, _code: str) -> None:
    return None


class KubeClient:
    """Requests of one operator. Construct by `open_client`; `close` ends its connections."""

    def __init__(self, api: Any, count: Callable[[str, str], None] = _uncounted) -> None:  # noqa: ANN401 - untyped
        """`count(verb, code)` is told of every request; the code is empty when no answer came."""
        self._api = api
        self._count = count

    async def request(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content: str = JSON,
        accept: str = JSON,
        seconds: float = REQUEST_SECONDS,
    ) -> bytes:
        """The body of a successful answer.

        Raises `Missing`, `Exists`, `Expired`, `Conflict`, `Refused` or `Transient` (see `errors`).
        """
        asked = f"{verb} {path}"
        target = f"{path}?{urlencode(query)}" if query else path
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS))
        code = ""
        try:
            method, url, headers, data, _ = await self._api.param_serialize(
                verb, target, header_params={"Accept": accept, "Content-Type": content}, body=body,
                auth_settings=["BearerToken"],
            )  # fmt: skip
            answer = await self._api.call_api(method, url, headers, data, _request_timeout=timeout)
            raw: bytes = await answer.read()
            code = str(answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError, ConfigException, ApiException) as error:
            why = str(error) or type(error).__name__
            raise Transient(f"{asked}: no answer: {why[:200]}", retry_after_seconds=_AWAY_SECONDS) from error
        finally:
            self._count(verb, code)
        if answer.status >= 400:
            raise problem_of(answer.status, raw, answer.headers.get("Retry-After", ""), asked)
        return raw

    @asynccontextmanager
    async def stream(self, path: str, *, query: Mapping[str, str]) -> AsyncIterator[aiohttp.StreamReader]:
        """A successful answer that is read as it comes, for ever if it goes on for ever. Raises as `request`."""
        method, url, headers, data, _ = await self._api.param_serialize(
            "GET", f"{path}?{urlencode(query)}", header_params={"Accept": "*/*"}, auth_settings=["BearerToken"]
        )
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        try:
            answer = await self._api.call_api(method, url, headers, data, _request_timeout=timeout)
            if answer.status >= 400:
                raise problem_of(answer.status, await answer.read(), "", f"GET {path}")
            try:
                yield answer.response.content
            finally:
                answer.response.close()
        except (aiohttp.ClientError, TimeoutError, OSError, ConfigException, ApiException) as error:
            raise Transient(f"GET {path}: no answer: {error!s:.200}", retry_after_seconds=_AWAY_SECONDS) from error

    @asynccontextmanager
    async def socket(
        self, path: str, *, query: list[tuple[str, str]], protocol: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket to a pod through the API server. Raises `Refused` or `Transient` when it cannot be opened."""
        _, url, headers, _, _ = await self._api.param_serialize("GET", path, auth_settings=["BearerToken"])
        rest = self._api.rest_client
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()
        place = f"ws{url.removeprefix('http')}?{urlencode(query)}"
        try:
            async with rest.pool_manager.ws_connect(place, headers=headers, protocols=(protocol,)) as channel:
                yield channel
        except aiohttp.WSServerHandshakeError as error:
            body = f'{{"message": "{path} was answered with HTTP {error.status}"}}'.encode()
            raise problem_of(error.status, body, "", f"GET {path}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(f"GET {path}: no answer: {error!s:.200}", retry_after_seconds=_AWAY_SECONDS) from error

    async def get(self, path: str, *, query: Mapping[str, str] | None = None, accept: str = JSON) -> bytes:
        """One object or list."""
        return await self.request("GET", path, query=query, accept=accept)

    async def create(self, path: str, manifest: Manifest) -> bytes:
        """A new object in the collection `path`; a field that the server does not know is an error."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self.request("POST", path, query=query, body=manifest)

    async def replace(self, path: str, manifest: Manifest) -> bytes:
        """Another content of an existing object, or of its subresource."""
        return await self.request("PUT", path, query={"fieldManager": FIELD_MANAGER}, body=manifest)

    async def apply(self, path: str, manifest: Manifest) -> bytes:
        """Server-side apply: the fields of `manifest` are ours, whoever wrote them before."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        return await self.request("PATCH", path, query=query, body=manifest, content=APPLY)

    async def merge(self, path: str, change: Manifest) -> bytes:
        """Merge patch."""
        return await self.request("PATCH", path, query={"fieldManager": FIELD_MANAGER}, body=change, content=MERGE)

    async def delete(self, path: str, *, uid: str, grace_seconds: int | None = None) -> None:
        """Begin to delete the object of that UID. Raises `Missing`, or `Conflict` if it has another UID."""
        body: Manifest = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        await self.request("DELETE", path, body=body)

    async def close(self) -> None:
        """End the connections."""
        await self._api.close()


async def open_client(kubeconfig: Path | None = None, count: Callable[[str, str], None] = _uncounted) -> KubeClient:
    """A client for this pod's account, or for a kubeconfig. Raises `UserError` when neither is usable."""
    return KubeClient(await connect(kubeconfig), count)
