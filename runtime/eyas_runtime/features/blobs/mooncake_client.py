"""The one door to the `mooncake` package: a client made with our settings, whose calls return plain codes.

`setup` and `close` of the library hold the interpreter lock while they wait (tried: 4 s per attempt against a dead
master), so no thread of ours could keep a deadline then. Therefore the master's port is probed with a socket first, and
`setup` is called only when somebody listens there, with one retry instead of the library's twenty.
"""

import importlib
import os
import socket
from dataclasses import dataclass
from typing import Any, Final, Literal

from eyas_contract.errors import Transient, UserError
from eyas_runtime.features.blobs.locked_memory import require_lockable

LOCAL_BUFFER_BYTES: Final = 16 << 20
"""The library's own buffer; only its copying calls use it, which we never do."""
SOFT_PIN_MILLISECONDS: Final = 24 * 3600 * 1000
PROBE_SECONDS: Final = 1.0
_NEEDED: Final = ("put_from", "batch_put_from_multi_buffers", "get_into", "get_into_ranges", "get_size", "remove")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """How to reach one Mooncake pool."""

    master_address: str
    """`host:port` of the master's RPC."""
    local_hostname: str
    """Address under which peers reach this process; each process of a host may have its own."""
    protocol: Literal["TCP", "RDMA"] = "TCP"
    rdma_devices: str = ""
    segment_bytes: int = 0
    """Memory that this process lends to the pool: 0 for all but store nodes, so only their death loses objects."""
    pin: Literal["soft", "hard"] = "soft"
    replicas: int = 1

    def require_memory(self, registered: int = 0) -> None:
        """Raise `UserError` where RDMA could not lock what set-up registers, and `registered` bytes beyond that."""
        if self.protocol == "RDMA":
            require_lockable(self.segment_bytes + LOCAL_BUFFER_BYTES + registered, devices=self.rdma_devices)


class MooncakeClient:
    """A connected client. The calls below block, may be made from any thread, and return Mooncake's codes."""

    def __init__(self, settings: ClientSettings) -> None:
        probe(settings.master_address)
        os.environ.setdefault("MC_STORE_CLIENT_SETUP_RETRIES", "1")
        library = load_library()
        store = library.MooncakeDistributedStore()
        code = store.setup(
            settings.local_hostname,
            "P2PHANDSHAKE",
            settings.segment_bytes,
            LOCAL_BUFFER_BYTES,
            settings.protocol.lower(),
            settings.rdma_devices,
            settings.master_address,
        )
        if code != 0:
            raise Transient(f"Mooncake set-up against {settings.master_address} failed with {code}")
        self._store: Any = store
        self._settings = settings
        self._registered: dict[int, int] = {}
        """Bytes by address."""
        self._config: Any = _replicate_config(library, settings)

    def register(self, address: int, size: int) -> bool:
        """Make memory known to the transfer engine; False if it would not have it (already known, or no more room)."""
        done = bool(self._store.register_buffer(address, size) == 0)
        if done:
            self._registered[address] = size
        return done

    def unregister(self, address: int) -> None:
        """Undo `register`."""
        self._store.unregister_buffer(address)
        self._registered.pop(address, None)

    def require_memory(self, size: int) -> None:
        """Raise `UserError` if `size` bytes more than what is registered are beyond this process's limit."""
        self._settings.require_memory(sum(list(self._registered.values())) + size)

    def put_from(self, key: str, addresses: list[int], sizes: list[int]) -> int:
        """Store the concatenation of registered memory under `key`."""
        if len(addresses) == 1:
            return int(self._store.put_from(key, addresses[0], sizes[0], self._config))
        return int(self._store.batch_put_from_multi_buffers([key], [addresses], [sizes], self._config)[0])

    def get_into(self, key: str, address: int, size: int) -> int:
        """Fetch the whole object; its length, or a code."""
        return int(self._store.get_into(key, address, size))

    def get_range(self, key: str, address: int, offset: int, size: int) -> int:
        """Fetch `size` bytes from `offset` to `address`; `size`, or a code."""
        return int(self._store.get_into_ranges([address], [[key]], [[[0]]], [[[offset]]], [[[size]]])[0][0][0])

    def get_size(self, key: str) -> int:
        """Bytes of the object, or a code. Grants a read lease."""
        return int(self._store.get_size(key))

    def exists_many(self, keys: list[str]) -> list[int]:
        """1, 0 or a code for each key. Grants read leases."""
        return [int(code) for code in self._store.batch_is_exist(keys)]

    def remove(self, key: str) -> int:
        """Plain remove, never forced: a reader that holds a lease would get the bytes of whatever comes next."""
        return int(self._store.remove(key))

    def copying_put(self, key: str, value: bytes) -> int:
        """The library's convenience call; for the benchmark's naive arm only."""
        return int(self._store.put(key, value, self._config))

    def copying_get(self, key: str) -> bytes:
        """The library's convenience call; for the benchmark's naive arm only. Empty bytes mean any kind of failure."""
        return bytes(self._store.get(key))

    def hostname(self) -> str:
        """`host:port` by which the pool knows this process; a store node's segment has this name."""
        return str(self._store.get_hostname())

    def close(self) -> None:
        """Leave the pool; a store node's segment goes with it."""
        self._store.close()


def probe(address: str) -> None:
    """Raise `Transient` unless something accepts connections at `address` now, `UserError` if it is no address."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        raise UserError(f"{address!r} is not host:port; set the Mooncake master's address")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    except OSError as error:
        raise Transient(
            f"the Mooncake master at {address} does not answer ({error})", retry_after_seconds=1.0
        ) from error


def load_library() -> Any:  # noqa: ANN401 - the package ships no types
    """The `mooncake.store` module. Raises `UserError` when it is absent or lacks a call that we need."""
    # The library logs every set-up and removal at INFO to stderr; warnings are enough unless the user asks for more.
    os.environ.setdefault("MC_LOG_LEVEL", "WARNING")
    try:
        library = importlib.import_module("mooncake.store")
    except ImportError as error:
        raise UserError(
            f"Mooncake cannot be loaded ({error}); install eyas[mooncake], or use store backend SharedDirectory"
        ) from error
    missing = [name for name in _NEEDED if not hasattr(library.MooncakeDistributedStore, name)]
    if missing or not hasattr(library.ReplicateConfig, "soft_pin_action"):
        raise UserError(f"this Mooncake release lacks {', '.join(missing) or 'soft pins'}; install the pinned one")
    return library


def _replicate_config(library: Any, settings: ClientSettings) -> Any:  # noqa: ANN401 - the package ships no types
    config = library.ReplicateConfig()
    config.replica_num = settings.replicas
    if settings.pin == "hard":
        config.with_hard_pin = True
    else:
        config.soft_pin_action = library.SoftPinAction.ENABLE
        config.soft_pin_ttl_ms = SOFT_PIN_MILLISECONDS
    return config
