"""Blobs in a Mooncake pool: the fast fabric, treated as untrusted bytes that may be missing, late or wrong.

The rules of this client, each of which closes a trap of the library:

1. Keys are minted, never reused: a put on an existing key would answer 0 and keep the old bytes.
2. A put counts only when a read-back of the size agrees.
3. What a key holds is proven by the reader's digest, never by the store.
4. Fetches use the calls that return codes (`get_into` and its ranged form), into registered memory.
5. Removal is always plain: it is refused while a reader holds a lease, and asked again later.
6. Objects are pinned, so a full pool refuses (-200) instead of dropping samples silently; see `mooncake_master`.
7. Every code means flow control, loss, waiting, or a bug; `mooncake_codes` is the table.
8. Every call runs under our own deadline in a worker thread.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from eyas_contract.errors import Bug, Conflict, EyasError, NotReadable, Transient, UserError
from eyas_contract.ids import valid_key
from eyas_runtime.features.blobs import mooncake_codes as codes
from eyas_runtime.features.blobs import mooncake_transfer as transfer
from eyas_runtime.features.blobs.buffers import BufferPool, Lease
from eyas_runtime.features.blobs.deadline import BoundedCalls, Progress
from eyas_runtime.features.blobs.mooncake_admin import MooncakeAdmin
from eyas_runtime.features.blobs.mooncake_client import ClientSettings, MooncakeClient
from eyas_runtime.features.blobs.port import Blob, Capacity, HealthValue, Sink, StoredBlob, check_length, parts_of

T = TypeVar("T")
Keys = list[str]
Entries = list[StoredBlob]
Sizes = list[int | None]


class MooncakeBlobStore:
    """`BlobStore` over a Mooncake pool; connects at its first call.

    Raises `UserError` when it is made in a process that may not lock the memory which RDMA registers.

    `admin_address` (`host:port` of the master's metrics port) is needed by whoever lists and measures: the metadata
    service. Without it `list` raises `UserError` and `capacity` answers None.
    """

    def __init__(
        self, settings: ClientSettings, *, admin_address: str | None = None, deadline_seconds: float = 10.0
    ) -> None:
        settings.require_memory()
        self._settings = settings
        self._calls = BoundedCalls("Mooncake", seconds=deadline_seconds)
        self._admin = None if admin_address is None else MooncakeAdmin(admin_address, deadline_seconds=deadline_seconds)
        self._deadline_seconds = deadline_seconds
        self._slots = threading.BoundedSemaphore(transfers_max(len(os.sched_getaffinity(0))))
        self._lock = threading.Lock()
        self._client: MooncakeClient | None = None
        self._pool: BufferPool | None = None

    def connect(self) -> None:
        """Join the pool. Raises `Transient` while the master is away, `UserError` if Mooncake cannot be used here."""
        self._bounded("connect", lambda client, _progress: None)

    def put(self, key: str, data: Blob) -> None:
        """See the port. The parts are read in place; they must not change until the call has returned."""
        key, parts = valid_key(key), parts_of(data)
        length, what = sum(map(len, parts)), f"put of {key}"

        def work(client: MooncakeClient, _progress: Progress) -> None:
            found = client.get_size(key)
            if found >= 0 or found == codes.NOT_READY:
                raise Conflict(f"{key} exists already ({codes.describe(found) if found < 0 else found}); keys are new")
            if found != codes.NOT_FOUND:
                raise codes.write_error(found, what)
            with transfer.registered(client, self._memory(), parts) as memory, self._transferring(what):
                code = client.put_from(key, memory.addresses, memory.sizes)
            if code != codes.OK:
                raise codes.write_error(code, what)
            transfer.read_back(client, key, length)

        self._bounded(what, work)

    def get(self, key: str, length: int, sink: Sink | None = None) -> memoryview:
        """See the port; the memory is registered and reused once the caller has dropped it."""
        key = valid_key(key)
        check_length(length)
        leases: list[Lease] = []
        position = 0

        def work(client: MooncakeClient, progress: Progress) -> None:
            lease = self._memory().lease(length)
            leases.append(lease)
            with self._transferring(f"get of {key}"):
                transfer.fetch(client, key, length, lease.address, progress)

        def on_piece(end: int) -> None:
            nonlocal position
            if sink is not None:
                sink(leases[0].view[position:end])
            position = end

        self._bounded(f"get of {key}", work, on_piece)
        return leases[0].view

    def get_into(self, key: str, target: memoryview, sink: Sink | None = None) -> None:
        """See the port. `target` need not be registered: the bytes pass through memory that is."""
        view = target.cast("B")
        view[:] = self.get(key, len(view), sink)

    def size(self, key: str) -> int | None:
        """See the port."""
        return self._sizes([valid_key(key)])[0]

    def exists_many(self, keys: Sequence[str]) -> Sequence[bool]:
        """See the port."""
        return [size is not None for size in self._sizes([valid_key(key) for key in keys])]

    def delete(self, key: str) -> bool:
        """See the port; False while any reader's lease on it runs (the master's lease term after the last read)."""
        key = valid_key(key)
        what = f"delete of {key}"
        return self._bounded(what, lambda client, _progress: codes.removed(client.remove(key), what))

    def list(self, prefix: str) -> Iterable[StoredBlob]:
        """See the port; without lengths, which would cost a query per key."""
        admin = self._admin_or_fail()

        def work(_progress: Progress) -> Entries:
            found: Entries = []
            for key in admin.keys(prefix):
                with suppress(UserError):
                    found.append(StoredBlob(valid_key(key), None))
            return found

        return self._calls.run(work, what="list")

    def capacity(self) -> Capacity | None:
        """Bytes of all mounted segments and of what is allocated; None without an admin address."""
        admin = self._admin
        return None if admin is None else self._calls.run(lambda _progress: admin.capacity(), what="capacity")

    def health(self) -> Mapping[str, HealthValue]:
        """See the port. Reachable: the master answered just now (the library's own check says yes for ever)."""
        state: dict[str, HealthValue] = {
            "backend": "Mooncake",
            "auth_required": False,
            "protocol": self._settings.protocol,
            "pin": self._settings.pin,
            "stuck_calls": self._calls.stuck,
        }
        try:
            probe = "eyas.healthcheck.e0.g0." + 32 * "0"
            code = self._bounded("health", lambda client, _progress: client.get_size(probe))
            if code in codes.AWAY:
                return state | {"reachable": False, "reason": codes.describe(code)}
            capacity = self.capacity()
        except EyasError as error:
            return state | {"reachable": False, "reason": str(error)[:200]}
        state["reachable"] = True
        return state if capacity is None else state | {"total_bytes": capacity[0], "used_bytes": capacity[1]}

    def sweep_temporary(self, *, writers_are_gone: bool = False) -> int:
        """Nothing to do: the master itself discards what a dead writer began (`put_start_discard_timeout_sec`)."""
        return 0

    def close(self) -> None:
        """See the port. A client whose call is stuck is left to the end of the process: closing would wait for it."""
        self._calls.close()
        with self._lock:
            client, self._client = self._client, None
        if self._pool is not None:
            self._pool.close()
        if client is not None and self._calls.stuck == 0:
            client.close()
        if self._admin is not None:
            self._admin.close()

    def raw_client(self) -> MooncakeClient:
        """The connected client itself, for benchmarks and fault tests: no rule above holds for its calls."""
        return self._bounded("connect", lambda client, _progress: client)

    def _bounded(self, what: str, work: Callable[[MooncakeClient, Progress], T], on_piece: Progress | None = None) -> T:
        return self._calls.run(lambda progress: work(self._connected(), progress), on_piece, what=what)

    def _connected(self) -> MooncakeClient:
        with self._lock:
            if self._client is None:
                client = MooncakeClient(self._settings)
                self._pool = BufferPool(register=_register_with(client), unregister=_unregister_with(client))
                self._client = client
            return self._client

    @contextmanager
    def _transferring(self, what: str) -> Iterator[None]:
        if not self._slots.acquire(timeout=self._deadline_seconds):
            raise Transient(f"{what}: the transfers before it did not end within {self._deadline_seconds:g} s")
        try:
            yield
        finally:
            self._slots.release()

    def _memory(self) -> BufferPool:
        if self._pool is None:
            raise Bug("registered memory is asked for before the client connected")
        return self._pool

    def _admin_or_fail(self) -> MooncakeAdmin:
        if self._admin is None:
            raise UserError("listing a Mooncake pool needs the master's admin address; set store.masterMetricsAddress")
        return self._admin

    def _sizes(self, keys: Keys) -> Sizes:
        admin = self._admin
        if admin is not None:
            return self._calls.run(lambda _progress: admin.sizes(keys), what="sizes")

        def work(client: MooncakeClient, _progress: Progress) -> Sizes:
            return [_size_or_none(client.get_size(key), key) for key in keys]

        return self._bounded("sizes", work)


def transfers_max(cores: int) -> int:
    """Transfers that one client has under way on a host with `cores`.

    The library waits for a transfer by spinning, and one thread serves all TCP connections of a process: two transfers
    on two cores were seen to reach a third of the throughput of one. While one is under way others are digested.
    """
    return max(1, cores // 4)


def _size_or_none(code: int, key: str) -> int | None:
    if code >= 0:
        return code
    error = codes.read_error(code, f"size of {key}")
    if isinstance(error, NotReadable):
        return None
    raise error


def _register_with(client: MooncakeClient) -> Callable[[int, int], None]:
    def register(address: int, size: int) -> None:
        if not client.register(address, size):
            client.require_memory(size)
            raise Transient(f"Mooncake would not register {size} bytes of memory")

    return register


def _unregister_with(client: MooncakeClient) -> Callable[[int, int], None]:
    return lambda address, _size: client.unregister(address)
