"""One HTTP exchange with the metadata service: bytes out, bytes in, both bounded; nothing is retried here.

Everything that may heal by itself (refused or cut connections, time-outs, gateways, a service that crashed, a service
of an older store epoch) becomes `Transient`; everything else is the error class that the service named.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec
import urllib3

from eyas_contract import wire
from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Bug, Closed, Conflict, EyasError, Fenced, Transient, Unauthenticated, UserError

REPLY_BYTES_MAX: Final = 96 << 20
"""The largest reply is the prepared inputs (64 MiB of body at most when they were committed)."""
CONNECT_SECONDS: Final = 5.0
READ_MARGIN_SECONDS: Final = 15.0
"""Beyond the wait that a long poll asks for: a transaction behind others, a disk that syncs slowly."""
CONNECTIONS_KEPT: Final = 8
CONNECTION_SECONDS: Final = 10.0
"""No call begins on connections that are older."""
Pool = urllib3.HTTPConnectionPool | urllib3.HTTPSConnectionPool
_CLASSES: Final[dict[str, type[EyasError]]] = {
    "UserError": UserError,
    "Conflict": Conflict,
    "Fenced": Fenced,
    "Closed": Closed,
    "Unauthenticated": Unauthenticated,
    "Bug": Bug,
}


class Answer(msgspec.Struct, frozen=True):
    """What came back: status, body, and the store epoch of the service that answered (-1: it named none)."""

    status: int
    body: bytes
    store_epoch: int


class Connections:
    """Keep-alive connections to one URL, for several threads; made anew after `CONNECTION_SECONDS`.

    An established connection leads to the pod that it was made to, wherever the Service points since. A metadata
    service that was replaced may run on, on a node that nobody can stop it on: who kept an old connection to it would
    work for it as long as it answers, and its successor would wait for ever.
    """

    def __init__(self, url: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises `UserError` when the URL is not usable."""
        self._url = url
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._pool, self._since = new_pool(url), monotonic()

    def pool(self) -> Pool:
        """Where a call may begin now."""
        with self._lock:
            now = self._monotonic()
            if now - self._since >= CONNECTION_SECONDS:
                # Calls under way keep the old one; its idle connections are closed with it.
                self._pool, self._since = new_pool(self._url), now
            return self._pool

    def close(self) -> None:
        """Drop those that are idle."""
        with self._lock:
            self._pool.close()


def new_pool(url: str) -> Pool:
    """A keep-alive pool for `url` that several threads may share. Raises `UserError` when the URL is not usable."""
    try:
        parsed = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError as error:
        raise UserError(f"the metadata service's URL {url!r} is not valid") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise UserError(f"the metadata service's URL {url!r} must be http://host:port or https://host:port")
    kind = urllib3.HTTPSConnectionPool if parsed.scheme == "https" else urllib3.HTTPConnectionPool
    return kind(parsed.host.strip("[]"), parsed.port, maxsize=CONNECTIONS_KEPT, block=False)


def no_answer(message: str) -> Transient:
    """The service said nothing: the caller's own rhythm of repetitions decides when to ask again."""
    return Transient(message, retry_after_seconds=0.0)


def exchange(pool: Pool, path: str, body: bytes, *, token: str, store_epoch: int, wait_seconds: float) -> Answer:
    """POST `body` once. Raises `Transient` when no complete answer came back."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        wire.STORE_EPOCH_HEADER: str(store_epoch),
    }
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=wait_seconds + READ_MARGIN_SECONDS)
    try:
        response = pool.urlopen(
            "POST", path, body=body, headers=headers, timeout=timeout, retries=False, redirect=False,
            preload_content=False, decode_content=False,
        )  # fmt: skip
        raw = response.read(REPLY_BYTES_MAX + 1)
        if len(raw) > REPLY_BYTES_MAX:
            response.close()
            raise no_answer(f"the answer to {path} is larger than {REPLY_BYTES_MAX} bytes")
        response.release_conn()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise no_answer(f"{path} at {pool.host}:{pool.port} did not answer: {error}") from error
    epoch = response.headers.get(wire.STORE_EPOCH_HEADER, "")
    return Answer(response.status, raw, int(epoch) if epoch.isascii() and epoch.isdigit() and len(epoch) < 10 else -1)


def problem_of(path: str, answer: Answer) -> EyasError:
    """The error that an answer with a status other than 200 stands for."""
    try:
        problem = msgspec.json.decode(answer.body, type=wire.Problem)
    except UNDECODABLE:
        return no_answer(f"{path} was answered with HTTP {answer.status} by something that is not the service")
    if problem.kind == "Transient":
        return Transient(problem.message, retry_after_seconds=max(0.0, problem.retry_after_seconds))
    return _CLASSES[problem.kind](problem.message)
