"""The Mooncake master's admin HTTP: listing, sizes and capacity without leases, and the drain of a node.

Asking over RPC whether an object exists grants a lease that keeps it from being removed; these queries do not (tried
against 0.3.13.post1). The port knows no credential, so a NetworkPolicy must guard it; nothing secret is sent. Bodies
are read in pieces up to a bound: what answers may be anything.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import msgspec
import urllib3

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Transient
from eyas_runtime.features.blobs.port import Capacity

T = TypeVar("T")
LISTING_BYTES_MAX: Final = 512 << 20
"""A listing of five million keys; a pool with more is not ours alone and needs another sweep."""
ANSWER_BYTES_MAX: Final = 8 << 20
KEYS_PER_QUERY: Final = 200
"""Keys travel in the URL: about 20 KiB of it."""
LINE_BYTES_MAX: Final = 4096
PIECE_BYTES: Final = 1 << 16


class _Replica(msgspec.Struct):
    size_: int


class _KeyAnswer(msgspec.Struct):
    ok: bool
    values: list[_Replica] | None = None


class _QueryAnswer(msgspec.Struct):
    data: dict[str, _KeyAnswer]


class _DrainAnswer(msgspec.Struct):
    success: bool
    job_id: str = ""
    error_message: str = ""


class _SegmentAnswer(msgspec.Struct):
    success: bool
    status_name: str = ""


class _Health(msgspec.Struct):
    role: str = ""
    service_ready: bool = False


class MooncakeAdmin:
    """Client of the admin HTTP at `address` (`host:port`). Every call raises `Transient` when it gets no answer."""

    def __init__(self, address: str, *, deadline_seconds: float) -> None:
        self._base = f"http://{address}"
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=min(2.0, deadline_seconds), read=deadline_seconds, total=deadline_seconds),
            retries=False,
            maxsize=4,
        )

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys that begin with `prefix`; half-written objects are not among them."""
        rest, total = b"", 0
        with self._request("GET", "/get_all_keys") as pieces:
            for piece in pieces:
                total += len(piece)
                if total > LISTING_BYTES_MAX:
                    raise Transient(f"the master lists more than {LISTING_BYTES_MAX} bytes of keys")
                *lines, rest = (rest + piece).split(b"\n")
                if len(rest) > LINE_BYTES_MAX:
                    raise Transient("the master's listing is not a list of keys")
                yield from _matching(lines, prefix)
        yield from _matching([rest], prefix)

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """Bytes of each of `keys`, None for those not readable. The keys must be safe in a URL (valid keys are)."""
        found: list[int | None] = []
        for start in range(0, len(keys), KEYS_PER_QUERY):
            some = keys[start : start + KEYS_PER_QUERY]
            answer = self._json("GET", f"/batch_query_keys?keys={','.join(some)}", _QueryAnswer)
            found += [_size(answer.data.get(key)) for key in some]
        return found

    def capacity(self) -> Capacity:
        """Bytes of all mounted segments, and of what is allocated in them."""
        totals = {"master_total_capacity_bytes": 0, "master_allocated_bytes": 0}
        for line in self._body("GET", "/metrics").decode("utf-8", errors="replace").splitlines():
            name, _, value = line.partition(" ")
            if name in totals:
                totals[name] = int(float(value))
        return Capacity(totals["master_total_capacity_bytes"], totals["master_allocated_bytes"])

    def serving(self) -> bool:
        """Whether this master leads and serves."""
        return self._json("GET", "/health", _Health).service_ready

    def segments(self) -> list[str]:
        """Names (`host:port`) of the mounted segments."""
        return self._body("GET", "/get_all_segments").decode("ascii", errors="replace").split()

    def start_drain(self, segment: str, *, concurrency: int) -> str:
        """Begin to move all objects off `segment`; returns the job's id."""
        body = msgspec.json.encode({"segments": [segment], "max_concurrency": concurrency, "bandwidth_mbps": 0})
        answer = self._json("POST", "/api/v1/drain_jobs", _DrainAnswer, body)
        if not answer.success:
            raise Transient(f"the master refused to drain {segment}: {answer.error_message[:200]}")
        return answer.job_id

    def segment_status(self, segment: str) -> str:
        """`OK`, `DRAINING`, `DRAINED`, ... as the master says."""
        return self._json("GET", f"/api/v1/segments/status?segment={segment}", _SegmentAnswer).status_name

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()

    def _json(self, method: str, path: str, kind: type[T], body: bytes | None = None) -> T:
        try:
            return msgspec.json.decode(self._body(method, path, body), type=kind)
        except UNDECODABLE as error:
            raise Transient(f"the master's answer to {path.partition('?')[0]} is not understood: {error}") from error

    def _body(self, method: str, path: str, body: bytes | None = None) -> bytes:
        with self._request(method, path, body) as pieces:
            whole = bytearray()
            for piece in pieces:
                whole += piece
                if len(whole) > ANSWER_BYTES_MAX:
                    raise Transient(f"the master's answer to {path.partition('?')[0]} is too long")
            return bytes(whole)

    @contextmanager
    def _request(self, method: str, path: str, body: bytes | None = None) -> Iterator[Iterator[bytes]]:
        """The pieces of the answer's body; whatever the network does becomes `Transient`."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            response = self._http.request(
                method, self._base + path, body=body, headers=headers, preload_content=False, redirect=False
            )
            try:
                if response.status in (404, 503) or response.status >= 500:
                    raise Transient(f"the master answered {response.status} to {path.partition('?')[0]}")
                yield response.stream(PIECE_BYTES)
                response.drain_conn()
            finally:
                response.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(f"the master's admin port does not answer: {type(error).__name__}") from error


def _matching(lines: Iterable[bytes], prefix: str) -> Iterator[str]:
    wanted = prefix.encode("ascii")
    for line in lines:
        if line and line.startswith(wanted):
            yield line.decode("utf-8", errors="replace")


def _size(answer: _KeyAnswer | None) -> int | None:
    if answer is None or not answer.ok or not answer.values:
        return None
    return answer.values[0].size_
