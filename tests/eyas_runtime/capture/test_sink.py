"""The sink of a producer: what it stores stays readable, and the process does not grow with it."""

from eyas_contract.ids import JobUid
from eyas_runtime.capture.sink import StoreSink
from eyas_runtime.features.blobs.memory import MemoryPool
from eyas_runtime.features.local import LocalFeatureStore
from support.keys import new_task, new_tensors

JOB = JobUid("testjob0")
FLAT = {name: tensor[0] for name, tensor in new_tensors().items()}


def test_a_producer_remembers_nothing_of_what_it_stored() -> None:
    store = LocalFeatureStore(job_uid=JOB, pool=(pool := MemoryPool()))
    sink = StoreSink(store)
    refs = [sink.put(new_task(JOB, sequence=number), FLAT, fingerprint="f") for number in range(100)]
    assert store._residency._entries == {}
    assert (store.health()["resident_samples"], store.health()["resident_bytes"]) == (0, 0)
    assert sorted(pool.blobs) == sorted(ref.key for ref in refs)


def test_what_was_handed_over_does_not_fill_the_cap() -> None:
    one = StoreSink(LocalFeatureStore(job_uid=JOB)).put(new_task(JOB), FLAT, fingerprint="f").length
    sink = StoreSink(LocalFeatureStore(job_uid=JOB, max_resident_bytes=one))
    for number in range(3):
        sink.put(new_task(JOB, sequence=number), FLAT, fingerprint="f")
