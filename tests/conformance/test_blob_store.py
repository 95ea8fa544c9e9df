"""What every blob store promises, whichever backend keeps the bytes."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from eyas_contract.errors import Conflict, NotReadable, Transient, UserError
from eyas_contract.ids import JobUid, key_prefix
from eyas_runtime.features.blobs.port import BlobStore, Buffer
from support.backends import Backend
from support.keys import new_job, new_key
from support.mooncake_pool import wait_until

LENGTHS = (1, 4095, 4096, 4097, (4 << 20) - 1, (4 << 20) + 1, (9 << 20) + 3)


@pytest.mark.parametrize("length", LENGTHS)
def test_what_was_put_is_fetched_bit_for_bit(blobs: BlobStore, job_uid: JobUid, length: int) -> None:
    key, data = new_key(job_uid), os.urandom(length)
    blobs.put(key, data)
    assert bytes(blobs.get(key, length)) == data
    assert blobs.size(key) == length


def test_parts_are_stored_as_their_concatenation(blobs: BlobStore, job_uid: JobUid) -> None:
    key = new_key(job_uid)
    parts: list[Buffer] = [
        b"head",
        bytearray(os.urandom(300_000)),
        b"",
        memoryview(os.urandom(5)),
        bytearray(os.urandom(400_000)),
        b"z",
    ]
    whole = b"".join(bytes(part) for part in parts)
    blobs.put(key, parts)
    assert bytes(blobs.get(key, len(whole))) == whole


def test_get_into_fills_the_callers_own_memory(blobs: BlobStore, job_uid: JobUid) -> None:
    key, data = new_key(job_uid), os.urandom(5 << 20)
    blobs.put(key, data)
    target = bytearray(len(data))
    blobs.get_into(key, memoryview(target))
    assert target == data


@pytest.mark.parametrize("length", [10, (9 << 20) + 3])
def test_the_sink_sees_every_byte_once_and_in_order(blobs: BlobStore, job_uid: JobUid, length: int) -> None:
    key, data = new_key(job_uid), os.urandom(length)
    blobs.put(key, data)
    seen: list[bytes] = []
    blobs.get(key, length, lambda piece: seen.append(bytes(piece)))
    assert b"".join(seen) == data


def test_a_failing_sink_ends_the_call_and_hurts_nobody_else(blobs: BlobStore, job_uid: JobUid) -> None:
    key, data = new_key(job_uid), os.urandom(9 << 20)
    blobs.put(key, data)

    def refuse(_piece: memoryview) -> None:
        raise LookupError("the reader gave up")

    with pytest.raises(LookupError):
        blobs.get(key, len(data), refuse)
    assert bytes(blobs.get(key, len(data))) == data


def test_a_key_is_written_once(blobs: BlobStore, job_uid: JobUid) -> None:
    key, first = new_key(job_uid), os.urandom(100)
    blobs.put(key, first)
    with pytest.raises(Conflict):
        blobs.put(key, os.urandom(100))
    assert bytes(blobs.get(key, 100)) == first


def test_a_key_that_was_never_put_is_not_readable(blobs: BlobStore, job_uid: JobUid) -> None:
    key = new_key(job_uid)
    with pytest.raises(NotReadable):
        blobs.get(key, 10)
    assert blobs.size(key) is None


@pytest.mark.parametrize("promised", [99, 101, 1, 9 << 20])
def test_another_length_than_the_promised_one_is_not_readable(blobs: BlobStore, job_uid: JobUid, promised: int) -> None:
    key = new_key(job_uid)
    blobs.put(key, os.urandom(100))
    with pytest.raises(NotReadable):
        blobs.get(key, promised)


def test_clients_of_one_store_see_each_others_objects(backend: Backend, job_uid: JobUid) -> None:
    writer, reader = backend.client(), backend.client()
    key, data = new_key(job_uid), os.urandom(1 << 20)
    writer.put(key, data)
    assert bytes(reader.get(key, len(data))) == data
    wait_until(lambda: reader.delete(key))
    with pytest.raises(NotReadable):
        writer.get(key, len(data))


def test_neither_source_nor_fetched_memory_is_shared_with_the_store(blobs: BlobStore, job_uid: JobUid) -> None:
    key, data = new_key(job_uid), bytearray(os.urandom(400_000))
    original = bytes(data)
    blobs.put(key, data)
    data[:] = bytes(len(data))
    fetched = blobs.get(key, len(data))
    fetched[:] = bytes(len(data))
    assert bytes(blobs.get(key, len(data))) == original


def test_fetched_memory_is_not_reused_while_anybody_holds_a_part_of_it(blobs: BlobStore, job_uid: JobUid) -> None:
    contents = [os.urandom(100_000) for _ in range(4)]
    keys = [new_key(job_uid) for _ in contents]
    for key, data in zip(keys, contents, strict=True):
        blobs.put(key, data)
    tails = [blobs.get(key, 100_000)[50_000:] for key in keys]
    assert [bytes(tail) for tail in tails] == [data[50_000:] for data in contents]


def test_a_deleted_key_is_gone_and_deleting_it_again_is_no_error(blobs: BlobStore, job_uid: JobUid) -> None:
    key = new_key(job_uid)
    blobs.put(key, b"x")
    wait_until(lambda: blobs.delete(key))
    assert blobs.delete(key)
    assert blobs.size(key) is None
    with pytest.raises(NotReadable):
        blobs.get(key, 1)


def test_asking_whether_keys_exist_does_not_keep_them_from_being_deleted(blobs: BlobStore, job_uid: JobUid) -> None:
    key, other = new_key(job_uid), new_key(job_uid)
    blobs.put(key, b"x")

    def ask_then_delete() -> bool:
        assert list(blobs.exists_many([key, other])) == [True, False]
        assert blobs.size(key) == 1
        return blobs.delete(key)

    wait_until(ask_then_delete)
    assert list(blobs.exists_many([key])) == [False]


def test_many_keys_are_asked_about_in_one_call(blobs: BlobStore, job_uid: JobUid) -> None:
    keys = [new_key(job_uid) for _ in range(450)]
    for key in keys[::50]:
        blobs.put(key, b"x")
    assert [key for key, exists in zip(keys, blobs.exists_many(keys), strict=True) if exists] == keys[::50]


def test_a_listing_holds_exactly_the_keys_with_the_prefix(blobs: BlobStore, job_uid: JobUid) -> None:
    keys = {new_key(job_uid) for _ in range(5)}
    stranger = new_job()
    for key in keys:
        blobs.put(key, b"abc")
    blobs.put(new_key(stranger), b"abc")
    listed = {blob.key: blob.length for blob in blobs.list(key_prefix(job_uid))}
    assert set(listed) == keys
    assert set(listed.values()) <= {3, None}


CALLS: dict[str, Callable[[BlobStore, str], object]] = {
    "put": lambda blobs, key: blobs.put(key, b"x"),
    "get": lambda blobs, key: blobs.get(key, 1),
    "get_into": lambda blobs, key: blobs.get_into(key, memoryview(bytearray(1))),
    "size": lambda blobs, key: blobs.size(key),
    "exists_many": lambda blobs, key: blobs.exists_many([key]),
    "delete": lambda blobs, key: blobs.delete(key),
}
HOSTILE = ("", "../../etc/passwd", "/etc/passwd", "eyas.job00000001.e0.g1.x/../y", "a" * 100_000, "eyas.\0", "k")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("key", HOSTILE, ids=lambda key: repr(key[:20]))
def test_a_key_that_we_did_not_mint_is_refused_before_anything_happens(blobs: BlobStore, call: str, key: str) -> None:
    with pytest.raises(UserError):
        CALLS[call](blobs, key)


def test_an_empty_blob_is_refused(blobs: BlobStore, job_uid: JobUid) -> None:
    key = new_key(job_uid)
    for nothing in (b"", [], [b"", b""]):
        with pytest.raises(UserError):
            blobs.put(key, nothing)
    with pytest.raises(UserError):
        blobs.get(key, 0)


def test_capacity_counts_what_is_stored(blobs: BlobStore, job_uid: JobUid) -> None:
    before = blobs.capacity()
    blobs.put(new_key(job_uid), os.urandom(1 << 20))
    after = blobs.capacity()
    if blobs.health()["backend"] == "Memory":
        assert after is None
    else:
        assert before is not None
        assert after is not None
        assert after.used_bytes - before.used_bytes >= 1 << 20
        assert after.used_bytes <= after.total_bytes


def test_health_is_flat_and_says_reachable(blobs: BlobStore) -> None:
    health = blobs.health()
    assert health["reachable"] is True
    assert all(isinstance(value, str | int | float | bool) for value in health.values())


def test_a_closed_client_says_so_and_closes_once(backend: Backend, job_uid: JobUid) -> None:
    blobs = backend.fresh_client()
    key = new_key(job_uid)
    blobs.put(key, b"x")
    blobs.close()
    blobs.close()
    with pytest.raises(Transient):
        blobs.get(key, 1)


def test_threads_may_share_one_client(blobs: BlobStore, job_uid: JobUid) -> None:
    def work(number: int) -> None:
        for _ in range(4):
            key, data = new_key(job_uid), bytearray(os.urandom(300_000 + number))
            blobs.put(key, data)
            for _ in range(2):
                assert bytes(blobs.get(key, len(data))) == data

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
