"""Blobs in this process's memory: the colocated mode's store, and the reference that the other adapters must equal.

The pool owns the bytes and the credential; each client of it is one `MemoryBlobStore`, as each process is one client of
the other backends. The cap is checked and reserved in one step, so concurrent puts cannot pass it together.
"""

import hmac
import threading
from collections.abc import Iterable, Mapping, Sequence

from eyas_contract.errors import Conflict, NotReadable, StoreFull, Transient, Unauthenticated
from eyas_contract.ids import valid_key
from eyas_runtime.features.blobs.port import Blob, Capacity, HealthValue, Sink, StoredBlob, check_length, parts_of


class MemoryPool:
    """What all clients of one in-memory store share."""

    def __init__(self, *, max_bytes: int | None = None, token: bytes | None = None) -> None:
        self.max_bytes = max_bytes
        self.lock = threading.Lock()
        self.blobs: dict[str, bytes] = {}
        self.used_bytes = 0
        """Bytes stored or reserved by a put that is copying."""
        self._token = token

    @property
    def auth_required(self) -> bool:
        """Whether clients must show the token."""
        return self._token is not None

    def admit(self, token: bytes | None) -> None:
        """Raise `Unauthenticated` unless `token` is the pool's (any is accepted by an open pool)."""
        if self._token is not None and not hmac.compare_digest(self._token, token or b""):
            raise Unauthenticated("the store token is missing or wrong for this in-memory store")


class MemoryBlobStore:
    """`BlobStore` over a `MemoryPool`."""

    def __init__(self, pool: MemoryPool | None = None, *, token: bytes | None = None) -> None:
        self._pool = MemoryPool() if pool is None else pool
        self._pool.admit(token)
        self._closed = False

    def put(self, key: str, data: Blob) -> None:
        """See the port; `StoreFull` when the pool's cap would be passed."""
        key, parts = valid_key(key), parts_of(data)
        length = sum(map(len, parts))
        pool = self._open()
        with pool.lock:
            if key in pool.blobs:
                raise Conflict(f"{key} exists already; keys are never reused")
            if pool.max_bytes is not None and pool.used_bytes + length > pool.max_bytes:
                raise StoreFull(f"{length} bytes do not fit: {pool.used_bytes} of {pool.max_bytes} are used")
            pool.used_bytes += length
        copied = b"".join(parts)
        with pool.lock:
            if key in pool.blobs:
                pool.used_bytes -= length
                raise Conflict(f"{key} was stored meanwhile; keys are never reused")
            pool.blobs[key] = copied

    def get(self, key: str, length: int, sink: Sink | None = None) -> memoryview:
        """See the port."""
        check_length(length)
        target = memoryview(bytearray(length))
        self.get_into(key, target, sink)
        return target

    def get_into(self, key: str, target: memoryview, sink: Sink | None = None) -> None:
        """See the port."""
        key = valid_key(key)
        check_length(len(target))
        blob = self._open().blobs.get(key)
        if blob is None or len(blob) != len(target):
            raise NotReadable(f"{key}: {_found(blob)}, {len(target)} bytes were promised")
        target[:] = blob
        if sink is not None:
            sink(target)

    def size(self, key: str) -> int | None:
        """See the port."""
        blob = self._open().blobs.get(valid_key(key))
        return None if blob is None else len(blob)

    def exists_many(self, keys: Sequence[str]) -> Sequence[bool]:
        """See the port."""
        return [self.size(key) is not None for key in keys]

    def delete(self, key: str) -> bool:
        """See the port; always True, readers have copies."""
        key = valid_key(key)
        pool = self._open()
        with pool.lock:
            pool.used_bytes -= len(pool.blobs.pop(key, b""))
        return True

    def list(self, prefix: str) -> Iterable[StoredBlob]:
        """See the port."""
        pool = self._open()
        with pool.lock:
            return [StoredBlob(key, len(blob)) for key, blob in pool.blobs.items() if key.startswith(prefix)]

    def capacity(self) -> Capacity | None:
        """The pool's cap and use; None without a cap."""
        pool = self._open()
        return None if pool.max_bytes is None else Capacity(pool.max_bytes, pool.used_bytes)

    def health(self) -> Mapping[str, HealthValue]:
        """See the port."""
        pool = self._pool
        return {
            "backend": "Memory",
            "reachable": not self._closed,
            "auth_required": pool.auth_required,
            "objects": len(pool.blobs),
            "used_bytes": pool.used_bytes,
        }

    def sweep_temporary(self, *, writers_are_gone: bool = False) -> int:
        """Nothing half-written can exist in memory that died with its writer."""
        return 0

    def close(self) -> None:
        """See the port; the pool lives on for its other clients."""
        self._closed = True

    def _open(self) -> MemoryPool:
        if self._closed:
            raise Transient("this client of the in-memory store was closed")
        return self._pool


def _found(blob: bytes | None) -> str:
    return "nothing is stored" if blob is None else f"{len(blob)} bytes are stored"
