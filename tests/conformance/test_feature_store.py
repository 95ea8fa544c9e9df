"""What every feature store promises: SpecForge's calls, without the holes that its stores were found to have."""

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import blake3
import msgspec
import pytest
import torch

from eyas_contract.errors import Conflict, Corrupt, EyasError, NotReadable, StoreFull, UserError
from eyas_contract.ids import JobUid, key_prefix, sample_id
from eyas_contract.no_tensors import assert_no_tensors
from eyas_contract.refs import FeatureSpec, SampleRef
from eyas_runtime import digests
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.features.store import FeatureStore, SampleMetadata
from support.backends import Backend
from support.keys import METADATA, bits_of, new_job, new_key, new_task, new_tensors
from support.mooncake_pool import wait_until

Make = Callable[..., FeatureStore]


@pytest.fixture
def make(backend: Backend, job_uid: JobUid) -> Make:
    """Each call gives another process's feature store over the same backend."""

    def store(**options: object) -> FeatureStore:
        return FeatureStore(backend.client(), job_uid=job_uid, **options)  # type: ignore[arg-type]

    return store


def equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


def stored(blobs: BlobStore, job_uid: JobUid) -> set[str]:
    return {blob.key for blob in blobs.list(key_prefix(job_uid))}


def drain(store: FeatureStore) -> None:
    """Repeat `gc` until no deletion is refused any more."""
    wait_until(lambda: store.gc().release_pending == 0)


def test_put_returns_a_ref_without_tensors_and_get_returns_equal_ones(make: Make, job_uid: JobUid) -> None:
    store, tensors = make(), new_tensors()
    ref = store.put(tensors, new_task(job_uid), METADATA)
    assert_no_tensors(ref)
    found, handle = store.get(ref)
    assert equal(found, tensors)
    assert handle.generation == ref.generation
    assert handle.lease_token


def test_every_dtype_and_shape_comes_back_bit_for_bit(make: Make, job_uid: JobUid) -> None:
    store = make()
    bits = torch.randint(0, 256, (3, 16), dtype=torch.uint8)
    whole = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int16)
    tensors = {str(dtype).removeprefix("torch."): bits.view(dtype) for dtype in (*whole, torch.int8, torch.uint8)}
    tensors |= {"flags": bits > 100, "scalar": torch.tensor(1.5), "empty": torch.empty(0, 4), "strided": bits.T[::2]}
    ref = store.put(tensors, new_task(job_uid), METADATA)
    found, _ = store.get(ref)
    for name, tensor in tensors.items():
        assert (found[name].shape, found[name].dtype) == (tensor.shape, tensor.dtype)
        assert bits_of(found[name]) == bits_of(tensor), name


def test_another_process_reads_what_one_put(make: Make, job_uid: JobUid) -> None:
    producer, consumer = make(), make(retain_on_release=True)
    tensors = new_tensors(tokens=40_000)
    ref = producer.put(tensors, new_task(job_uid), METADATA)
    found, _ = consumer.get(ref)
    assert equal(found, tensors)


def test_only_the_named_tensors_are_returned(make: Make, job_uid: JobUid) -> None:
    store, tensors = make(), new_tensors()
    ref = store.put(tensors, new_task(job_uid), METADATA)
    found, _ = store.get(ref, names=["target"])
    assert equal(found, {"target": tensors["target"]})
    with pytest.raises(NotReadable):
        store.get(ref, names=["no_such_feature"])


def test_fetched_tensors_are_independent_of_store_and_source(make: Make, job_uid: JobUid) -> None:
    store, tensors = make(), new_tensors()
    expected = {name: tensor.clone() for name, tensor in tensors.items()}
    ref = store.put(tensors, new_task(job_uid), METADATA)
    tensors["target"].zero_()
    first, _ = store.get(ref)
    first["hidden_state"].zero_()
    first["target"].add_(1)
    second, _ = store.get(ref)
    assert equal(second, expected)


def test_tensors_outlive_release_and_later_reads(make: Make, job_uid: JobUid) -> None:
    store = make()
    samples = [new_tensors(seed) for seed in range(4)]
    refs = [store.put(sample, new_task(job_uid, sequence=n), METADATA) for n, sample in enumerate(samples)]
    held = []
    for ref in refs:
        found, handle = store.get(ref)
        store.release(handle)
        held.append(found)
    assert all(equal(found, sample) for found, sample in zip(held, samples, strict=True))


def test_memory_stays_until_the_last_lease_ends(make: Make, blobs: BlobStore, job_uid: JobUid) -> None:
    store = make()
    ref = store.put(new_tensors(), new_task(job_uid), METADATA)
    _, first = store.get(ref)
    _, second = store.get(ref)
    store.release(first)
    # A repeat of the first release must not count as the second.
    store.release(first)
    drain(store)
    assert stored(blobs, job_uid) == {ref.key}
    store.release(second)
    drain(store)
    assert stored(blobs, job_uid) == set()


def test_no_use_after_free(make: Make, job_uid: JobUid) -> None:
    # B5: once the last lease ended, the ref is not readable, although a backend may keep the bytes a while.
    store = make()
    ref = store.put(new_tensors(), new_task(job_uid), METADATA)
    _, handle = store.get(ref)
    store.release(handle)
    with pytest.raises(NotReadable):
        store.get(ref)
    drain(store)
    with pytest.raises(NotReadable):
        store.get(ref)


def test_a_freed_sample_is_gone_for_every_process(make: Make, blobs: BlobStore, job_uid: JobUid) -> None:
    producer, consumer = make(), make()
    ref = producer.put(new_tensors(), new_task(job_uid), METADATA)
    _, handle = consumer.get(ref)
    consumer.release(handle)
    drain(consumer)
    assert stored(blobs, job_uid) == set()
    with pytest.raises(NotReadable):
        producer.get(ref)


def test_a_store_that_retains_keeps_the_object_after_release(make: Make, job_uid: JobUid) -> None:
    store, tensors = make(retain_on_release=True), new_tensors()
    ref = store.put(tensors, new_task(job_uid), METADATA)
    _, handle = store.get(ref)
    store.release(handle)
    drain(store)
    found, _ = store.get(ref)
    assert equal(found, tensors)


def test_a_stale_generation_can_neither_read_nor_free_a_newer_one(make: Make, job_uid: JobUid) -> None:
    store = make()
    old_ref = store.put(new_tensors(1), new_task(job_uid, generation=1), METADATA)
    _, stale = store.get(old_ref)
    fresh = new_tensors(2)
    new_ref = store.put(fresh, new_task(job_uid, generation=2), METADATA)
    store.release(stale)
    drain(store)
    found, _ = store.get(new_ref)
    assert equal(found, fresh)
    with pytest.raises(NotReadable):
        store.get(old_ref)
    with pytest.raises(NotReadable):
        store.get(msgspec.structs.replace(new_ref, generation=1))


def test_generations_of_a_new_process_never_repeat_an_old_key(make: Make, job_uid: JobUid) -> None:
    # SpecForge's counter restarts at 1 and an old ref then reads new data; here the key decides, and it is minted.
    first = make()
    old_ref = first.put(new_tensors(1), new_task(job_uid, generation=1), METADATA)
    first.abort(old_ref)
    drain(first)
    second = make()
    second.put(new_tensors(2), new_task(job_uid, generation=1), METADATA)
    with pytest.raises(NotReadable):
        second.get(old_ref)


def test_abort_frees_whatever_the_leases(make: Make, blobs: BlobStore, job_uid: JobUid) -> None:
    store = make()
    ref = store.put(new_tensors(), new_task(job_uid), METADATA)
    _, handle = store.get(ref)
    store.abort(ref)
    with pytest.raises(NotReadable):
        store.get(ref)
    drain(store)
    assert stored(blobs, job_uid) == set()
    store.release(handle)
    store.abort(ref)
    assert store.health()["resident_bytes"] == 0
    assert store.health()["active_leases"] == 0


def test_abort_works_in_a_process_that_never_saw_the_sample(make: Make, blobs: BlobStore, job_uid: JobUid) -> None:
    producer, janitor = make(), make()
    ref = producer.put(new_tensors(), new_task(job_uid), METADATA)
    janitor.abort(ref.key)
    drain(janitor)
    assert stored(blobs, job_uid) == set()
    with pytest.raises(NotReadable):
        producer.get(ref)


def test_abort_while_another_process_holds_a_lease_ends_with_nothing_readable(
    make: Make, blobs: BlobStore, job_uid: JobUid
) -> None:
    # An expected failure in SpecForge.
    producer, consumer = make(), make(retain_on_release=True)
    ref = producer.put(new_tensors(), new_task(job_uid), METADATA)
    held, _ = consumer.get(ref)
    before = {name: tensor.clone() for name, tensor in held.items()}
    producer.abort(ref)
    drain(producer)
    with pytest.raises(NotReadable):
        consumer.get(ref)
    assert equal(held, before)
    assert stored(blobs, job_uid) == set()


def test_a_long_loop_of_samples_leaves_nothing_behind(make: Make, blobs: BlobStore, job_uid: JobUid) -> None:
    store = make(max_resident_bytes=20_000)
    for number in range(40):
        ref = store.put(new_tensors(number), new_task(job_uid, sequence=number), METADATA)
        _, handle = store.get(ref)
        store.release(handle)
        if number % 8 == 7:
            drain(store)
    health = store.health()
    assert (health["resident_bytes"], health["resident_samples"], health["release_pending"]) == (0, 0, 0)
    assert stored(blobs, job_uid) == set()


def test_a_put_over_the_cap_is_refused_and_changes_nothing(make: Make, blobs: BlobStore, job_uid: JobUid) -> None:
    store = make(max_resident_bytes=2000)
    ref = store.put(new_tensors(), new_task(job_uid, sequence=0), METADATA)
    before = store.health()["resident_bytes"]
    with pytest.raises(StoreFull):
        store.put(new_tensors(tokens=40), new_task(job_uid, sequence=1), METADATA)
    assert store.health()["resident_bytes"] == before
    assert stored(blobs, job_uid) == {ref.key}


def test_the_cap_sees_what_another_process_freed(make: Make, job_uid: JobUid) -> None:
    producer, consumer = make(max_resident_bytes=1000), make()
    ref = producer.put(new_tensors(), new_task(job_uid, sequence=0), METADATA)
    with pytest.raises(StoreFull):
        producer.put(new_tensors(), new_task(job_uid, sequence=1), METADATA)
    consumer.abort(ref)
    drain(consumer)
    producer.put(new_tensors(), new_task(job_uid, sequence=1), METADATA)


def test_the_same_put_again_succeeds_and_another_content_is_refused(make: Make, job_uid: JobUid) -> None:
    store, task, tensors = make(), new_task(job_uid), new_tensors()
    ref = store.put(tensors, task, METADATA)
    assert store.put(tensors, task, METADATA) == ref
    with pytest.raises(Conflict):
        store.put(new_tensors(9), task, METADATA)
    found, _ = store.get(ref)
    assert equal(found, tensors)
    assert store.health()["resident_bytes"] == ref.length


def test_gc_frees_what_is_older_than_the_hold_age_and_spares_what_is_leased(make: Make, job_uid: JobUid) -> None:
    store = make(max_hold_age_seconds=60.0, clock=lambda: 0.0)
    old, here, elsewhere = (store.put(new_tensors(n), new_task(job_uid, sequence=n), METADATA) for n in range(3))
    store.get(here)
    assert store.gc(now=59.0).force_freed == 0
    result = store.gc(now=61.0, leased_elsewhere={elsewhere.key})
    assert result.force_freed == 1
    with pytest.raises(NotReadable):
        store.get(old)
    for kept in (here, elsewhere):
        store.get(kept)


def test_gc_without_a_hold_age_frees_nothing(make: Make, job_uid: JobUid) -> None:
    store = make()
    ref = store.put(new_tensors(), new_task(job_uid), METADATA)
    assert store.gc(now=1e12).force_freed == 0
    store.get(ref)


def test_what_was_handed_over_is_read_and_freed_as_before(make: Make, blobs: BlobStore, job_uid: JobUid) -> None:
    store = make(max_hold_age_seconds=60.0, clock=lambda: 0.0, retain_on_release=True)
    ref, read = (store.put(new_tensors(), new_task(job_uid, sequence=n), METADATA) for n in range(2))
    _, handle = store.get(read)
    for each in (ref, read, read):
        store.hand_over(each)
    assert store.health()["resident_bytes"] == 0
    assert store.gc(now=61.0).force_freed == 0
    store.release(handle)
    assert store._residency._entries == {}
    store.abort(ref)
    drain(store)
    assert stored(blobs, job_uid) == {read.key}


def test_a_freed_sample_waiting_for_deletion_does_not_endanger_a_new_put(make: Make, job_uid: JobUid) -> None:
    # SpecForge's next gc then removed the fresh objects.
    store = make()
    ref = store.put(new_tensors(1), new_task(job_uid), METADATA)
    store.get(ref)
    store.abort(ref)
    fresh = new_tensors(2)
    again = store.put(fresh, new_task(job_uid, generation=2), METADATA)
    drain(store)
    found, _ = store.get(again)
    assert equal(found, fresh)


@pytest.mark.parametrize("sample_id", ["../../escape", "a/b", "", "s-1", "s-00000000000x"])
def test_a_sample_id_that_we_did_not_make_is_refused(
    make: Make, blobs: BlobStore, job_uid: JobUid, sample_id: str
) -> None:
    store = make()
    task = msgspec.structs.replace(new_task(job_uid), sample_id=sample_id)
    with pytest.raises(UserError):
        store.put(new_tensors(), task, METADATA)
    assert stored(blobs, job_uid) == set()


def test_a_task_that_disagrees_with_its_key_is_refused(make: Make, job_uid: JobUid) -> None:
    store = make()
    for changes in ({"key": None}, {"generation": 7}, {"sequence": 3}):
        with pytest.raises(UserError):
            store.put(new_tensors(), msgspec.structs.replace(new_task(job_uid), **changes), METADATA)


@pytest.mark.parametrize(
    "tensors",
    [{}, {"bad/name": torch.zeros(1)}, {"complex": torch.zeros(1, dtype=torch.complex64)}, {"": torch.zeros(1)}],
    ids=["none", "path", "dtype", "nameless"],
)
def test_tensors_that_cannot_be_stored_are_refused_and_leave_nothing(
    make: Make, blobs: BlobStore, job_uid: JobUid, tensors: dict[str, torch.Tensor]
) -> None:
    store = make()
    with pytest.raises(UserError):
        store.put(tensors, new_task(job_uid), METADATA)
    assert stored(blobs, job_uid) == set()
    assert store.health()["resident_bytes"] == 0


def overwritten(store: FeatureStore, ref: SampleRef, data: bytes) -> SampleRef:
    """A ref of the same sample under a key that holds `data`: what a broken or hostile store would serve."""
    key = new_key(JobUid(ref.key.split(".")[1]))
    store.blobs.put(key, data)
    return msgspec.structs.replace(ref, key=key)


def raw(store: FeatureStore, ref: SampleRef) -> bytes:
    return bytes(store.blobs.get(ref.key, ref.length))


CORRUPTIONS: dict[str, Callable[[bytes], bytes]] = {
    "first header byte": lambda blob: bytes([blob[0] ^ 1]) + blob[1:],
    "identity byte": lambda blob: blob[:60] + bytes([blob[60] ^ 1]) + blob[61:],
    "a byte of a tensor": lambda blob: blob[:-40] + bytes([blob[-40] ^ 1]) + blob[-39:],
    "last byte": lambda blob: blob[:-1] + bytes([blob[-1] ^ 128]),
    "zeros": lambda blob: bytes(len(blob)),
    "truncated by one": lambda blob: bytes(blob[:-1]),
    "truncated to half": lambda blob: bytes(blob[: len(blob) // 2]),
    "one byte more": lambda blob: bytes(blob) + b"\0",
    "noise": lambda blob: os.urandom(len(blob)),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_corrupted_bytes_never_become_tensors(make: Make, job_uid: JobUid, corruption: str) -> None:
    store = make()
    ref = store.put(new_tensors(), new_task(job_uid), METADATA)
    bad = overwritten(store, ref, CORRUPTIONS[corruption](raw(store, ref)))
    with pytest.raises((Corrupt, NotReadable)):
        store.get(bad)
    assert store.health()["active_leases"] == 0


def test_another_samples_blob_is_refused_even_with_a_digest_that_fits(make: Make, job_uid: JobUid) -> None:
    # Identity is checked beside the digest: a ref whose digest was mixed up must not train the wrong sample.
    store = make()
    ref = store.put(new_tensors(1), new_task(job_uid, sequence=1), METADATA)
    other = store.put(new_tensors(2), new_task(job_uid, sequence=2), METADATA)
    mixed = msgspec.structs.replace(ref, key=other.key, digest=other.digest, length=other.length)
    with pytest.raises(Corrupt, match="sample"):
        store.get(mixed)


def test_an_ingested_object_is_read_under_every_use_of_its_file_and_no_other_generation(
    backend: Backend, make: Make, job_uid: JobUid
) -> None:
    writer = make()
    ref = writer.put(new_tensors(1), new_task(job_uid, sequence=1), METADATA)
    reader = FeatureStore(writer.blobs, job_uid=job_uid, objects_serve_many=True)
    later = msgspec.structs.replace(ref, sequence=9, sample_id=sample_id(9))
    tensors, _ = reader.get(later)
    assert set(tensors) == set(new_tensors(1))
    with pytest.raises(NotReadable, match="generation"):
        reader.get(msgspec.structs.replace(later, generation=ref.generation + 1))
    with pytest.raises(Corrupt, match="sample"):
        writer.get(later)


def test_another_jobs_blob_is_refused(make: Make, backend: Backend, job_uid: JobUid) -> None:
    store = make()
    foreign = FeatureStore(store.blobs, job_uid=new_job())
    ref = store.put(new_tensors(), new_task(job_uid), METADATA)
    with pytest.raises(Corrupt, match="job"):
        foreign.get(ref)


def test_specs_that_differ_from_the_refs_are_refused(make: Make, job_uid: JobUid) -> None:
    store = make()
    ref = store.put(new_tensors(), new_task(job_uid), METADATA)
    first, *rest = ref.feature_specs
    for specs in (
        (msgspec.structs.replace(first, shape=(*first.shape[:-1], first.shape[-1] + 1)), *rest),
        (msgspec.structs.replace(first, dtype="float16"), *rest),
        tuple(rest),
        (*ref.feature_specs, FeatureSpec(name="extra", shape=(1,), dtype="uint8")),
    ):
        with pytest.raises(Corrupt):
            store.get(msgspec.structs.replace(ref, feature_specs=specs))


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_pickled_bytes_are_refused_and_never_run(make: Make, job_uid: JobUid, tmp_path: Path) -> None:
    store, bomb = make(), tmp_path / "boom"
    ref = store.put(new_tensors(), new_task(job_uid), METADATA)
    attack = pickle.dumps(Bomb(bomb)).ljust(200, b"\0")
    bad = msgspec.structs.replace(
        overwritten(store, ref, attack), length=len(attack), digest=digests.digest_of([attack])
    )
    with pytest.raises(Corrupt, match="magic"):
        store.get(bad)
    assert not bomb.exists()


def test_the_digest_is_plain_blake3_of_the_stored_bytes(make: Make, job_uid: JobUid) -> None:
    store = make()
    ref = store.put(new_tensors(tokens=60_000), new_task(job_uid), METADATA)
    assert ref.digest == f"blake3:{blake3.blake3(raw(store, ref)).hexdigest()}"


def test_equal_tensors_have_equal_payload_digests_whatever_key_and_generation(make: Make, job_uid: JobUid) -> None:
    store = make()
    first = store.put(new_tensors(), new_task(job_uid, generation=1), METADATA)
    again = store.put(dict(reversed(new_tensors().items())), new_task(job_uid, generation=2), METADATA)
    drifted = new_tensors()
    drifted["target"].view(torch.int16)[0, 0, 0] ^= 1
    other = store.put(drifted, new_task(job_uid, generation=3), METADATA)
    assert first.payload_digest == again.payload_digest != other.payload_digest
    assert first.digest != again.digest


def test_xxh3_may_be_chosen_and_is_checked_as_well(make: Make, job_uid: JobUid) -> None:
    store = make(digest="xxh3-128")
    ref = store.put(new_tensors(), new_task(job_uid), METADATA)
    assert ref.digest.startswith("xxh3-128:")
    make().get(ref)
    bad = overwritten(store, ref, CORRUPTIONS["last byte"](raw(store, ref)))
    with pytest.raises(Corrupt):
        store.get(bad)


@pytest.mark.parametrize("digest", ["", "blake3", "blake3:", "md5:" + 32 * "0", "blake3:" + 64 * "g", "xxh3-128:00"])
def test_a_digest_that_is_none_is_refused(make: Make, job_uid: JobUid, digest: str) -> None:
    store = make()
    ref = store.put(new_tensors(), new_task(job_uid), METADATA)
    with pytest.raises(Corrupt):
        store.get(msgspec.structs.replace(ref, digest=digest))


def test_target_repr_is_stamped_on_the_target_only(make: Make, job_uid: JobUid) -> None:
    store = make()
    metadata = SampleMetadata(num_tokens=4, num_supervised=3, target_repr="hidden_state")
    ref = store.put(new_tensors(), new_task(job_uid), metadata)
    assert {spec.name: spec.target_repr for spec in ref.feature_specs}["target"] == "hidden_state"
    assert [spec.target_repr for spec in ref.feature_specs].count(None) == 3
    store.get(ref)


def test_health_counts_samples_bytes_and_leases(make: Make, job_uid: JobUid) -> None:
    store = make(max_resident_bytes=1 << 20)
    ref = store.put(new_tensors(), new_task(job_uid), METADATA)
    store.get(ref)
    health = store.health()
    assert (health["resident_samples"], health["resident_bytes"], health["active_leases"]) == (1, ref.length, 1)
    assert health["max_resident_bytes"] == 1 << 20
    assert all(isinstance(value, str | int | float | bool) for value in health.values())


def test_estimated_bytes_are_those_of_the_tensors() -> None:
    specs = [FeatureSpec(name="a", shape=(2, 3), dtype="bfloat16"), FeatureSpec(name="b", shape=(5,), dtype="mystery")]
    assert FeatureStore.estimate_bytes(specs) == 12 + 20


def test_every_error_of_a_store_is_one_of_ours(make: Make, job_uid: JobUid) -> None:
    store = make()
    ref = store.put(new_tensors(), new_task(job_uid), METADATA)
    store.abort(ref)
    with pytest.raises(EyasError):
        store.get(ref)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
