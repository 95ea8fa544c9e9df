"""One blob in and out of a Mooncake client, on memory that the transfer engine knows.

Runs inside a bounded call's worker thread. RDMA refuses memory that was not registered and TCP does not care, so memory
is always registered: for fetches once, in the pool; for puts the caller's own tensors, around the call, without a copy.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from eyas_contract.errors import Conflict, NotReadable, Transient
from eyas_runtime.features.blobs import mooncake_codes as codes
from eyas_runtime.features.blobs.buffers import BufferPool
from eyas_runtime.features.blobs.deadline import Progress
from eyas_runtime.features.blobs.mooncake_client import MooncakeClient

PIECE_BYTES_MIN: Final = 2 << 20
"""Below this a ranged fetch costs more by its own round trip than hashing it later would."""
PIECE_BYTES_MAX: Final = 16 << 20
STAGED_BELOW_BYTES: Final = 256 << 10
"""Smaller parts are gathered into pooled memory: copying them costs less than registering them."""


class Registered(NamedTuple):
    """Registered memory whose concatenation is one blob."""

    addresses: list[int]
    sizes: list[int]


@contextmanager
def registered(client: MooncakeClient, pool: BufferPool, parts: Sequence[memoryview]) -> Iterator[Registered]:
    """`parts` as registered memory, valid inside the block. Large writable parts are used in place."""
    memory = Registered([], [])
    in_place: list[int] = []
    staged: list[memoryview] = []
    small: list[memoryview] = []

    def stage() -> None:
        if small:
            lease = pool.lease(sum(map(len, small)))
            _join(small, lease.view)
            # The view keeps the pooled memory ours until the block ends.
            staged.append(lease.view)
            memory.addresses.append(lease.address)
            memory.sizes.append(len(lease.view))
            small.clear()

    try:
        for part in parts:
            address = _address_in_place(client, part)
            if address is None:
                small.append(part)
                continue
            in_place.append(address)
            stage()
            memory.addresses.append(address)
            memory.sizes.append(len(part))
        stage()
        yield memory
    finally:
        for address in in_place:
            client.unregister(address)


def _address_in_place(client: MooncakeClient, part: memoryview) -> int | None:
    """Address of `part`, now registered; None if it is small, read-only, or memory that the engine will not take."""
    if len(part) < STAGED_BELOW_BYTES or part.readonly:
        return None
    address = ctypes.addressof(ctypes.c_char.from_buffer(part))
    return address if client.register(address, len(part)) else None


def _join(parts: Sequence[memoryview], target: memoryview) -> None:
    position = 0
    for part in parts:
        target[position : position + len(part)] = part
        position += len(part)


def read_back(client: MooncakeClient, key: str, length: int) -> None:
    """Check that `key` holds `length` bytes: 0 from a put proves nothing when another writer had begun that key."""
    found = client.get_size(key)
    if found == length:
        return
    if found >= 0:
        raise Conflict(f"{key} holds {found} bytes after a put of {length}: somebody else wrote that key")
    raise Transient(f"{key} is not readable after its put: {codes.describe(found)}")


def fetch(client: MooncakeClient, key: str, length: int, address: int, progress: Progress) -> None:
    """Fetch exactly `length` bytes to `address` in pieces, each read once more when only its transfer failed."""
    what = f"get of {key}"
    found = client.get_size(key)
    if found < 0:
        raise codes.read_error(found, what)
    if found != length:
        raise NotReadable(f"{key}: {found} bytes are stored, {length} were promised")
    start = 0
    for size in piece_sizes(length):
        code = _read(client, key, address, start, size, length)
        if code in codes.RETRIED_READS:
            code = _read(client, key, address, start, size, length)
        if code < 0:
            raise codes.read_error(code, what)
        if code != size:
            raise NotReadable(f"{key}: a fetch of {size} bytes gave {code}")
        start += size
        progress(start)


def _read(client: MooncakeClient, key: str, address: int, start: int, size: int, length: int) -> int:
    if size == length:
        return client.get_into(key, address, size)
    return client.get_range(key, address + start, start, size)


def piece_sizes(length: int) -> list[int]:
    """Bytes of each ranged fetch of a blob: a piece is digested while the next one is under way.

    Hashing is about three times as fast as a TCP transfer: a piece of three quarters is digested just when the last
    quarter arrives, and little remains to be done after that.
    """
    sizes: list[int] = []
    left = length
    while left:
        size = min(left, PIECE_BYTES_MAX, max(PIECE_BYTES_MIN, left * 3 // 4))
        sizes.append(size)
        left -= size
    return sizes
