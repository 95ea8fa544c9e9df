"""Memory is reused only after every view of it died, registered once, and bounded."""

import ctypes
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_runtime.features.blobs.buffers import PAGE, BufferPool, block_size


@given(st.integers(1, 1 << 40))
def test_a_block_holds_what_was_asked_for_and_wastes_at_most_an_eighth_beyond_small_sizes(length: int) -> None:
    size = block_size(length)
    assert size >= length
    assert size % PAGE == 0
    assert size - length <= max(PAGE - 1, length // 8 + 1)


@given(st.integers(1, 1 << 40))
def test_block_sizes_are_fixed_points_and_grow_with_the_length(length: int) -> None:
    assert block_size(block_size(length)) == block_size(length)
    assert block_size(length + 1) >= block_size(length)


def test_a_view_is_writable_and_begins_at_the_address() -> None:
    lease = BufferPool().lease(10)
    lease.view[:] = b"0123456789"
    assert ctypes.string_at(lease.address, 10) == b"0123456789"


def test_memory_returns_only_when_the_last_slice_of_it_died() -> None:
    pool = BufferPool()
    lease = pool.lease(PAGE)
    address, tail = lease.address, lease.view[100:200]
    del lease
    gc.collect()
    assert pool.lease(PAGE).address != address
    assert pool.idle_bytes() == PAGE
    del tail
    gc.collect()
    assert pool.idle_bytes() == 2 * PAGE
    again = {pool.lease(PAGE).address for _ in range(1)}
    assert again


def test_registration_happens_once_per_block_and_is_undone_at_the_end() -> None:
    registered: list[tuple[int, int]] = []
    unregistered: list[tuple[int, int]] = []
    pool = BufferPool(
        register=lambda *block: registered.append(block), unregister=lambda *block: unregistered.append(block)
    )
    for _ in range(5):
        lease = pool.lease(3 * PAGE)
        del lease
        gc.collect()
    assert len(registered) == 1
    pool.close()
    assert unregistered == registered
    pool.close()
    assert unregistered == registered


def test_what_exceeds_the_idle_bound_is_given_up() -> None:
    unregistered: list[int] = []
    pool = BufferPool(idle_bytes_max=2 * PAGE, unregister=lambda address, _size: unregistered.append(address))
    leases = [pool.lease(PAGE) for _ in range(5)]
    leases.clear()
    gc.collect()
    assert pool.idle_bytes() == 2 * PAGE
    assert len(unregistered) == 3


def test_views_outlive_the_pool() -> None:
    pool = BufferPool()
    view = pool.lease(PAGE).view
    view[:4] = b"kept"
    pool.close()
    del pool
    gc.collect()
    assert bytes(view[:4]) == b"kept"


def test_a_refused_registration_hands_out_nothing() -> None:
    def refuse(_address: int, _size: int) -> None:
        raise MemoryError("limit on locked memory")

    with pytest.raises(MemoryError):
        BufferPool(register=refuse).lease(1)
