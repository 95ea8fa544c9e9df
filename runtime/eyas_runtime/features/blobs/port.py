"""Port `BlobStore`: what every place that keeps feature bytes must do, and which error each failure becomes.

| error | meaning for the caller |
| --- | --- |
| `UserError` | the key is not one that Eyas mints, or the store is configured wrongly |
| `Conflict` | the key exists: keys are never reused, its bytes stay |
| `StoreFull` | no room now: flow control |
| `Transient` | the store is away, busy, or did not answer by our deadline: repeat |
| `NotReadable` | nothing whole is there under that key and length: the sample is lost, capture again |
| `Unauthenticated` | the credential is missing or wrong (stores that can know) |

All calls are synchronous and may be made from any thread. One conformance suite holds all adapters to this page.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from eyas_contract.errors import UserError

Buffer = bytes | bytearray | memoryview
Blob = Buffer | Sequence[Buffer]
"""One buffer, or several that are stored as their concatenation."""
Sink = Callable[[memoryview], object]
"""Sees each fetched piece once, in order, in the caller's thread, while later pieces are still under way."""
HealthValue = str | int | float | bool


class Capacity(NamedTuple):
    """Room of a store, in bytes."""

    total_bytes: int
    used_bytes: int


class StoredBlob(NamedTuple):
    """One entry of a listing."""

    key: str
    length: int | None
    """Bytes; None where listing lengths would cost a call per key."""


class BlobStore(Protocol):
    """Bytes under keys. The table above says what each call raises."""

    def put(self, key: str, data: Blob) -> None:
        """Store `data` completely under the new `key`, or leave nothing readable there.

        After `Transient` the key may or may not exist: look with `size`, or repeat with another key.
        """

    def get(self, key: str, length: int, sink: Sink | None = None) -> memoryview:
        """Exactly `length` bytes of `key` in memory of the caller's own, writable, shared with nobody."""

    def get_into(self, key: str, target: memoryview, sink: Sink | None = None) -> None:
        """Fill `target` with the blob of `key`, whose length must be that of `target`."""

    def size(self, key: str) -> int | None:
        """Bytes stored under `key`; None if there is nothing whole."""

    def exists_many(self, keys: Sequence[str]) -> Sequence[bool]:
        """For each of `keys` whether something whole is stored; never keeps a blob from being deleted."""

    def delete(self, key: str) -> bool:
        """Delete `key`. True: it is gone (or never was). False: a reader holds it, ask again later."""

    def list(self, prefix: str) -> Iterable[StoredBlob]:
        """Every whole blob whose key begins with `prefix` and is one that Eyas mints, in any order."""

    def capacity(self) -> Capacity | None:
        """Room of the whole store now; None where it is unknown or unlimited."""

    def health(self) -> Mapping[str, HealthValue]:
        """Flat numbers and words for status and `eyas doctor`; `reachable` is always among them. Never raises."""

    def sweep_temporary(self, *, writers_are_gone: bool = False) -> int:
        """Remove what writers that died in mid-put left behind; returns how many.

        `writers_are_gone`: the job is over, so whatever is unfinished will never be finished, wherever it was begun.
        """

    def close(self) -> None:
        """Let go of threads, memory and connections; a second call does nothing."""


def parts_of(data: Blob) -> list[memoryview]:
    """`data` as byte views, empty parts left out. Raises `UserError` when nothing is left: no blob is empty."""
    whole = [data] if isinstance(data, bytes | bytearray | memoryview) else data
    parts = [view for part in whole if len(view := memoryview(part).cast("B"))]
    if not parts:
        raise UserError("an empty blob cannot be stored")
    return parts


def check_length(length: int) -> None:
    """Raise `UserError` unless `length` is one that a blob can have."""
    if length <= 0:
        raise UserError(f"a blob has at least one byte, not {length}")
