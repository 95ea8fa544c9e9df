"""The in-memory store: cap and credential, checked by the side that owns the bytes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from eyas_contract.errors import Conflict, StoreFull, Unauthenticated
from eyas_contract.ids import JobUid
from eyas_runtime.features.blobs.memory import MemoryBlobStore, MemoryPool
from eyas_runtime.features.local import LocalFeatureStore
from support.keys import METADATA, new_key, new_task, new_tensors


def test_concurrent_puts_never_pass_the_cap_together(job_uid: JobUid) -> None:
    pool = MemoryPool(max_bytes=10_000)
    store = MemoryBlobStore(pool)
    barrier = threading.Barrier(16)

    def put(_number: int) -> bool:
        barrier.wait()
        try:
            store.put(new_key(job_uid), bytes(1000))
        except StoreFull:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(put, range(16))) == 10
    assert pool.used_bytes == 10_000


def test_deleting_makes_room(job_uid: JobUid) -> None:
    store = MemoryBlobStore(MemoryPool(max_bytes=1000))
    key = new_key(job_uid)
    store.put(key, bytes(1000))
    with pytest.raises(StoreFull):
        store.put(new_key(job_uid), b"x")
    store.delete(key)
    store.delete(key)
    store.put(new_key(job_uid), bytes(1000))
    assert store.capacity() == (1000, 1000)


def test_of_many_writers_of_one_key_exactly_one_wins(job_uid: JobUid) -> None:
    pool = MemoryPool(max_bytes=1_000_000)
    key = new_key(job_uid)
    barrier = threading.Barrier(8)

    def put(number: int) -> bool:
        barrier.wait()
        try:
            MemoryBlobStore(pool).put(key, bytes([number]) * 1000)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(put, range(8))) == 1
    assert pool.used_bytes == 1000


@pytest.mark.parametrize("token", [None, b"", b"wrong"], ids=repr)
def test_a_wrong_or_missing_token_is_refused(token: bytes | None, job_uid: JobUid) -> None:
    pool = MemoryPool(token=b"right")
    MemoryBlobStore(pool, token=b"right")
    with pytest.raises(Unauthenticated):
        MemoryBlobStore(pool, token=token)
    with pytest.raises(Unauthenticated):
        LocalFeatureStore(job_uid=job_uid, pool=pool, token=token)


def test_local_feature_stores_share_a_pool_and_nothing_without_one(job_uid: JobUid) -> None:
    pool = MemoryPool()
    producer, consumer = (LocalFeatureStore(job_uid=job_uid, pool=pool) for _ in range(2))
    ref = producer.put(new_tensors(), new_task(job_uid), METADATA)
    consumer.get(ref)
    with pytest.raises(KeyError):
        LocalFeatureStore(job_uid=job_uid).get(ref)
