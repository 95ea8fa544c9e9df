"""Memory for fetched blobs: mapped once, registered once, given back when the last tensor in it dies.

Fresh memory costs one page fault for every 4 KiB, several times what the transfer itself costs, and RDMA may write
only into registered memory. So a store keeps the memory it handed out and uses it again. The caller owns its view as
long as it, or anything made from it without a copy, is alive; only then does the memory return. Memory beyond the
idle bound is unmapped instead of kept, and a request is never refused or made to wait.
"""

import ctypes
import mmap
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

IDLE_BYTES_MAX: Final = 1 << 30
"""Memory kept for reuse by one store client."""
PAGE: Final = mmap.PAGESIZE
HUGE_PAGE: Final = 2 << 20
CLASSES_PER_DOUBLING: Final = 8
"""Size classes: at most one eighth of a block is unused."""

Register = Callable[[int, int], None]


class Lease(NamedTuple):
    """Memory lent to a caller."""

    view: memoryview
    """Writable bytes of the length asked for."""
    address: int
    """Where `view` begins."""


class _Block(NamedTuple):
    memory: mmap.mmap
    address: int
    size: int


def _nothing(address: int, size: int) -> None:
    """Memory that needs no registration."""


def block_size(length: int) -> int:
    """Bytes of the block that serves `length`: the next of eight steps per power of two, in whole pages."""
    step = max(PAGE, 1 << max(0, (length - 1).bit_length() - 1 - (CLASSES_PER_DOUBLING.bit_length() - 1)))
    return -(-length // step) * step


class BufferPool:
    """Reusable memory blocks by size."""

    def __init__(
        self, *, idle_bytes_max: int = IDLE_BYTES_MAX, register: Register = _nothing, unregister: Register = _nothing
    ) -> None:
        self._idle_bytes_max = idle_bytes_max
        self._register = register
        self._unregister = unregister
        self._lock = threading.Lock()
        self._idle: dict[int, list[_Block]] = {}
        self._idle_bytes = 0
        # Views die in whatever thread and at whatever line the collector runs, perhaps while our lock is held there:
        # the callback may only append, and the next caller files the block.
        self._returned: deque[_Block] = deque()
        self._closed = False

    def lease(self, length: int) -> Lease:
        """`length` bytes with undefined content."""
        self._take_back()
        size = block_size(length)
        with self._lock:
            blocks = self._idle.get(size)
            block = blocks.pop() if blocks else None
            if block is not None:
                self._idle_bytes -= size
        if block is None:
            block = self._map(size)
        exported = (ctypes.c_char * length).from_buffer(block.memory)
        weakref.finalize(exported, self._returned.append, block).atexit = False
        return Lease(memoryview(exported).cast("B"), block.address)

    def close(self) -> None:
        """Forget idle memory; what callers still hold lives as long as they do."""
        self._take_back()
        with self._lock:
            self._closed = True
            blocks = [block for group in self._idle.values() for block in group]
            self._idle.clear()
            self._idle_bytes = 0
        for block in blocks:
            self._unregister(block.address, block.size)

    def idle_bytes(self) -> int:
        """Bytes that wait for reuse."""
        self._take_back()
        return self._idle_bytes

    def _map(self, size: int) -> _Block:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if size >= HUGE_PAGE:
            memory.madvise(mmap.MADV_HUGEPAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._register(address, size)
        return _Block(memory, address, size)

    def _take_back(self) -> None:
        while self._returned:
            try:
                block = self._returned.popleft()
            except IndexError:
                return
            with self._lock:
                keep = not self._closed and self._idle_bytes + block.size <= self._idle_bytes_max
                if keep:
                    self._idle.setdefault(block.size, []).append(block)
                    self._idle_bytes += block.size
            if not keep and not self._closed:
                self._unregister(block.address, block.size)
