"""A real Mooncake pool whose parts die: every fault ends in a named error or the right bits, never in wrong tensors."""

import ctypes
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

import msgspec
import pytest
import torch

from eyas_contract.errors import Conflict, Corrupt, EyasError, NotReadable, StoreFull, Transient
from eyas_contract.exits import Exit
from eyas_contract.ids import JobUid, key_prefix
from eyas_contract.refs import SampleRef
from eyas_runtime.features.blobs import mooncake_codes as codes
from eyas_runtime.features.blobs.mooncake import MooncakeBlobStore
from eyas_runtime.features.blobs.mooncake_client import MooncakeClient
from eyas_runtime.features.store import FeatureStore
from support.keys import METADATA, bits_of, new_key, new_task, new_tensors
from support.mooncake_pool import Pool, wait_until

pytestmark = pytest.mark.slow
MIB = 1 << 20


@pytest.fixture
def blobs(pool: Pool) -> MooncakeBlobStore:
    return pool.client()


@pytest.fixture
def store(blobs: MooncakeBlobStore, job_uid: JobUid) -> FeatureStore:
    return FeatureStore(blobs, job_uid=job_uid, retain_on_release=True)


def put_samples(store: FeatureStore, job_uid: JobUid, count: int) -> list[tuple[SampleRef, dict[str, torch.Tensor]]]:
    samples = [new_tensors(number, tokens=2000) for number in range(count)]
    return [(store.put(t, new_task(job_uid, sequence=n), METADATA), t) for n, t in enumerate(samples)]


def read_all(store: FeatureStore, samples: list[tuple[SampleRef, dict[str, torch.Tensor]]]) -> dict[str, int]:
    """How often each outcome came; tensors that differ fail the test."""
    outcomes: dict[str, int] = {}
    for ref, tensors in samples:
        try:
            found, handle = store.get(ref)
            assert {name: bits_of(t) for name, t in found.items()} == {name: bits_of(t) for name, t in tensors.items()}
            store.release(handle)
            outcome = "right"
        except EyasError as error:
            outcome = type(error).__name__
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def eventually(call: Callable[[], object], *tolerated: type[EyasError], seconds: float = 30.0) -> object:
    """Result of `call`, repeated while it raises one of `tolerated`, as every caller of the store does."""
    results: list[object] = []

    def once() -> bool:
        try:
            results.append(call())
        except tolerated:
            return False
        return True

    wait_until(once, seconds)
    return results[0]


def test_a_master_that_dies_is_waited_for_and_forgets_everything(
    pool: Pool, store: FeatureStore, job_uid: JobUid
) -> None:
    samples = put_samples(store, job_uid, 4)
    assert read_all(store, samples) == {"right": 4}
    pool.kill_master()
    # What the client cached of the dead master may still be read rightly; the rest must be told to wait.
    assert set(read_all(store, samples[:2])) <= {"right", "Transient"}
    with pytest.raises(Transient):
        store.put(new_tensors(9), new_task(job_uid, sequence=9), METADATA)
    assert store.health()["reachable"] is False
    pool.start_master()
    eventually(lambda: store.put(new_tensors(10), new_task(job_uid, sequence=10), METADATA), Transient)
    assert read_all(store, samples) == {"NotReadable": 4}
    assert store.health()["reachable"] is True


def test_keys_can_be_used_again_for_recapture_after_the_master_forgot_them(
    pool: Pool, store: FeatureStore, job_uid: JobUid
) -> None:
    [(old, _)] = put_samples(store, job_uid, 1)
    pool.kill_master()
    pool.start_master()
    fresh = new_tensors(3)
    task = new_task(job_uid, sequence=0, generation=2)
    ref = eventually(lambda: store.put(fresh, task, METADATA), Transient)
    assert isinstance(ref, SampleRef)
    assert read_all(store, [(ref, fresh), (old, fresh)]) == {"right": 1, "NotReadable": 1}


def test_a_store_node_that_dies_loses_its_objects_and_nothing_else(
    pool: Pool, store: FeatureStore, job_uid: JobUid
) -> None:
    samples = put_samples(store, job_uid, 4)
    [node] = pool.nodes
    node.kill()
    node.wait()
    assert read_all(store, samples) == {"NotReadable": 4}
    pool.start_node(64 * MIB)
    fresh = new_tensors(5)
    ref = eventually(lambda: store.put(fresh, new_task(job_uid, sequence=7), METADATA), Transient, Conflict)
    assert isinstance(ref, SampleRef)
    assert read_all(store, [(ref, fresh)]) == {"right": 1}


def test_no_store_node_is_flow_control_not_a_failure(pool: Pool, store: FeatureStore, job_uid: JobUid) -> None:
    [node] = pool.nodes
    node.terminate()
    assert node.wait() == Exit.TEMPORARY
    with pytest.raises(StoreFull):
        store.put(new_tensors(), new_task(job_uid), METADATA)


def test_a_full_pool_refuses_and_keeps_every_object_it_took(
    pool: Pool, blobs: MooncakeBlobStore, job_uid: JobUid
) -> None:
    stored: dict[str, bytes] = {}

    def put_for_ever() -> None:
        while True:
            key, data = new_key(job_uid), os.urandom(4 * MIB)
            blobs.put(key, data)
            stored[key] = data

    with pytest.raises(StoreFull):
        put_for_ever()
    assert len(stored) >= 12
    for key, data in stored.items():
        assert bytes(blobs.get(key, len(data))) == data
    capacity = blobs.capacity()
    assert capacity is not None
    assert capacity.used_bytes >= len(stored) * 4 * MIB


def raw_put(client: MooncakeClient, key: str, data: bytes) -> None:
    buffer = bytearray(data)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    assert client.register(address, len(buffer))
    assert client.put_from(key, [address], [len(buffer)]) == codes.OK
    client.unregister(address)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda blob: blob[:-9] + bytes([blob[-9] ^ 4]) + blob[-8:], Corrupt),
        (lambda blob: os.urandom(len(blob)), Corrupt),
        (lambda blob: blob[: len(blob) // 2], NotReadable),
        (lambda blob: blob + b"more", NotReadable),
    ],
    ids=["one bit", "noise", "truncated", "longer"],
)
def test_an_object_that_was_replaced_behind_our_back_never_becomes_tensors(
    blobs: MooncakeBlobStore,
    store: FeatureStore,
    job_uid: JobUid,
    change: Callable[[bytes], bytes],
    error: type[EyasError],
) -> None:
    [(ref, _)] = put_samples(store, job_uid, 1)
    original = bytes(blobs.get(ref.key, ref.length))
    client = blobs.raw_client()
    wait_until(lambda: client.remove(ref.key) == codes.OK)
    raw_put(client, ref.key, change(original))
    with pytest.raises(error):
        store.get(ref)


def test_two_samples_whose_objects_were_swapped_are_both_refused(
    blobs: MooncakeBlobStore, store: FeatureStore, job_uid: JobUid
) -> None:
    samples = put_samples(store, job_uid, 2)
    (one, _), (two, _) = samples
    contents = {one.key: bytes(blobs.get(two.key, two.length)), two.key: bytes(blobs.get(one.key, one.length))}
    client = blobs.raw_client()
    for key, data in contents.items():
        wait_until(lambda key=key: client.remove(key) == codes.OK)  # type: ignore[misc]
        raw_put(client, key, data)
    assert read_all(store, samples) == {"Corrupt": 2}


HALF_WRITER = """
import sys, time
from mooncake.store import MooncakeDistributedStore
host, master, key = sys.argv[1:]
store = MooncakeDistributedStore()
assert store.setup(host, "P2PHANDSHAKE", 0, 16 << 20, "tcp", "", master) == 0
assert store.batch_put_session_start([key], [4 << 20]) == [0]
print("begun", flush=True)
time.sleep(600)
"""


def test_what_a_dead_writer_began_is_neither_readable_nor_taken_for_a_success(
    pool: Pool, blobs: MooncakeBlobStore, job_uid: JobUid
) -> None:
    key = new_key(job_uid)
    settings = pool.settings()
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HALF_WRITER), settings.local_hostname, settings.master_address, key],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "begun\n"
    writer.kill()
    writer.wait()
    writer.stdout.close()
    with pytest.raises(NotReadable):
        blobs.get(key, 4 * MIB)
    assert blobs.size(key) is None
    # The library answers 0 to this put and keeps nothing of it.
    with pytest.raises(Conflict):
        blobs.put(key, os.urandom(4 * MIB))
    assert key not in {blob.key for blob in blobs.list(key_prefix(job_uid))}
    # Nor can it be deleted yet: it is not whole. A recapture gets another key, so nothing waits for it.
    assert blobs.delete(key) is False
    other, data = new_key(job_uid), os.urandom(4 * MIB)
    blobs.put(other, data)
    assert bytes(blobs.get(other, len(data))) == data


def test_an_object_under_a_transfer_lease_is_deleted_later_not_torn(blobs: MooncakeBlobStore, job_uid: JobUid) -> None:
    key, data = new_key(job_uid), os.urandom(MIB)
    blobs.put(key, data)
    blobs.get(key, len(data))
    assert blobs.delete(key) is False
    assert bytes(blobs.get(key, len(data))) == data
    wait_until(lambda: blobs.delete(key))


def test_a_call_against_a_silent_master_ends_at_our_deadline(pool: Pool, job_uid: JobUid) -> None:
    blobs = pool.client(deadline_seconds=1.0)
    key = new_key(job_uid)
    blobs.put(key, b"x")
    [binary] = master_binaries(pool)
    os.kill(binary, 19)
    try:
        begun = time.monotonic()
        with pytest.raises(Transient):
            blobs.get(key, 1)
        assert time.monotonic() - begun < 5.0
        assert blobs.health()["reachable"] is False
    finally:
        os.kill(binary, 18)
    assert eventually(lambda: bytes(blobs.get(key, 1)), Transient) == b"x"


def master_binaries(pool: Pool) -> list[int]:
    assert pool.master is not None
    children = f"/proc/{pool.master.pid}/task/{pool.master.pid}/children"
    with open(children, encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def test_the_master_binary_dies_with_its_keeper(pool: Pool) -> None:
    [binary] = master_binaries(pool)
    pool.kill_master()
    wait_until(lambda: not os.path.exists(f"/proc/{binary}") or _is_zombie(binary))


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


def test_a_client_made_before_the_master_runs_connects_when_it_does(pool: Pool, job_uid: JobUid) -> None:
    pool.kill_master()
    blobs = pool.client()
    key = new_key(job_uid)
    with pytest.raises(Transient):
        blobs.put(key, b"x")
    pool.start_master()
    eventually(lambda: blobs.put(key, b"x"), Transient)
    assert bytes(blobs.get(key, 1)) == b"x"


def test_a_node_that_is_drained_moves_its_objects_to_the_others(
    pool: Pool, store: FeatureStore, job_uid: JobUid
) -> None:
    leaving = pool.start_node(64 * MIB, drain_seconds=60.0)
    samples = put_samples(store, job_uid, 24)
    leaving.terminate()
    assert leaving.wait() == Exit.TEMPORARY
    assert read_all(store, samples) == {"right": 24}
    assert len(pool.admin().segments()) == 1


def test_a_ref_from_another_pool_is_lost_here(pool: Pool, store: FeatureStore, job_uid: JobUid) -> None:
    [(ref, _)] = put_samples(store, job_uid, 1)
    with pytest.raises(NotReadable):
        store.get(msgspec.structs.replace(ref, key=new_key(job_uid)))
