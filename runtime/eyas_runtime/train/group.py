"""How ranks talk: two collectives over bytes, and what can be built from them. Torch-free.

No objects travel: an order is JSON bytes, verdicts are one byte a place, metrics are float64s. `HubGroup` carries the
same over plain sockets, so that crash suites need no torch; real training uses `torch_group`.
"""

import hashlib
import socket
import struct
import time
from collections.abc import Sequence
from typing import Final, Protocol

from eyas_contract.errors import Closed, Transient
from eyas_contract.ids import Incarnation

MESSAGE_BYTES_MAX: Final = 64 << 20
_LENGTH: Final = struct.Struct("<Q")
_HELLO: Final = struct.Struct("<I32s")


class Group(Protocol):
    """The ranks of one incarnation on one channel. A lost peer raises `Closed` (the ranks start again)."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    def broadcast(self, data: bytes | None) -> bytes:
        """Rank 0's `data` on every rank; the others give None."""
        ...

    def all_gather(self, data: bytes) -> list[bytes]:
        """`data` of every rank in rank order; all of one length."""
        ...

    def close(self) -> None:
        """Leave; a second call does nothing."""
        ...


def merge_codes(parts: Sequence[bytes]) -> bytes:
    """Elementwise maximum of equally long byte strings."""
    return bytes(map(max, zip(*parts, strict=True))) if len(parts) > 1 else parts[0]


def add_floats(parts: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Elementwise sums in rank order, so that the same ranks always give the same bits."""
    totals = list(parts[0])
    for part in parts[1:]:
        totals = [total + value for total, value in zip(totals, part, strict=True)]
    return tuple(totals)


class SoloGroup:
    """The only rank of a world of one."""

    rank = 0
    world_size = 1

    def broadcast(self, data: bytes | None) -> bytes:
        """`data` itself."""
        if data is None:
            raise ValueError("rank 0 broadcasts nothing")
        return data

    def all_gather(self, data: bytes) -> list[bytes]:
        """Just `data`."""
        return [data]

    def close(self) -> None:
        """Nothing to leave."""


class HubGroup:
    """Ranks over TCP with rank 0 as the hub; for crash suites with the fake trainer.

    Members say rank and a digest of (incarnation, channel) first: a stale rank, or one of another channel, is dropped.
    """

    def __init__(self, rank: int, world_size: int, links: Sequence[socket.socket]) -> None:
        """`links`: on rank 0 the sockets of ranks 1.. in order, elsewhere the one to rank 0."""
        self.rank, self.world_size = rank, world_size
        self._links = list(links)

    def broadcast(self, data: bytes | None) -> bytes:
        """See `Group`."""
        if self.rank:
            return _receive(self._links[0])
        if data is None:
            raise ValueError("rank 0 broadcasts nothing")
        for link in self._links:
            _send(link, data)
        return data

    def all_gather(self, data: bytes) -> list[bytes]:
        """See `Group`."""
        if self.rank:
            _send(self._links[0], data)
            joined = _receive(self._links[0])
            return [joined[i : i + len(data)] for i in range(0, len(joined), max(1, len(data)))]
        parts = [data, *(_receive(link) for link in self._links)]
        if any(len(part) != len(data) for part in parts):
            raise ValueError("ranks gathered byte strings of different lengths")
        joined = b"".join(parts)
        for link in self._links:
            _send(link, joined)
        return parts

    def close(self) -> None:
        """Close the sockets."""
        while self._links:
            self._links.pop().close()


def hub_groups(
    *,
    rank: int,
    world_size: int,
    address: tuple[str, int],
    incarnation: Incarnation,
    channels: Sequence[str],
    timeout_seconds: float,
) -> list[HubGroup]:
    """One group per channel name. Raises `Closed` when the ranks do not meet within the time-out."""
    deadline = time.monotonic() + timeout_seconds
    tags = [hashlib.sha256(f"{incarnation}/{channel}".encode()).digest() for channel in channels]
    if rank:
        return [HubGroup(rank, world_size, [_connect(address, rank, tag, deadline)]) for tag in tags]
    links = _accept(address, world_size, tags, deadline)
    return [HubGroup(0, world_size, [links[tag, peer] for peer in range(1, world_size)]) for tag in tags]


def _connect(address: tuple[str, int], rank: int, tag: bytes, deadline: float) -> socket.socket:
    while True:
        try:
            link = socket.create_connection(address, timeout=max(0.1, deadline - time.monotonic()))
            link.settimeout(None)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.sendall(_HELLO.pack(rank, tag))
            if link.recv(1) == b"\x01":
                return link
            link.close()
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise Closed(f"rank {rank} did not meet rank 0 at {address[0]}:{address[1]}")
        time.sleep(0.02)


def _accept(
    address: tuple[str, int], world_size: int, tags: Sequence[bytes], deadline: float
) -> dict[tuple[bytes, int], socket.socket]:
    links: dict[tuple[bytes, int], socket.socket] = {}
    with _listen(address, deadline) as server:
        while len(links) < len(tags) * (world_size - 1):
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                link, _ = server.accept()
                link.settimeout(5.0)
                rank, tag = _HELLO.unpack(_exactly(link, _HELLO.size))
            except (OSError, Closed) as error:
                if time.monotonic() > deadline:
                    raise Closed("not every rank came to the rendezvous") from error
                continue
            if tag not in tags or not 0 < rank < world_size:
                link.close()
                continue
            link.settimeout(None)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.sendall(b"\x01")
            links[tag, rank] = link
    return links


def _listen(address: tuple[str, int], deadline: float) -> socket.socket:
    while True:
        try:
            return socket.create_server(address, backlog=128)
        except OSError as error:
            # The rank 0 before us may be dying just now.
            if time.monotonic() > deadline:
                raise Transient(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from error
            time.sleep(0.05)


def _send(link: socket.socket, data: bytes) -> None:
    try:
        link.sendall(_LENGTH.pack(len(data)) + data)
    except OSError as error:
        raise Closed(f"a rank is gone: {error.strerror}") from error


def _receive(link: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(link, _LENGTH.size))
    if length > MESSAGE_BYTES_MAX:
        raise Closed(f"a rank announced {length} bytes")
    return _exactly(link, length)


def _exactly(link: socket.socket, length: int) -> bytes:
    parts, missing = [], length
    while missing:
        try:
            part = link.recv(min(missing, 1 << 20))
        except OSError as error:
            raise Closed(f"a rank is gone: {error.strerror}") from error
        if not part:
            raise Closed("a rank is gone")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
