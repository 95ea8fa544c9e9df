"""`eyas bench store`: what our promises cost on top of the store's own fastest calls.

Three arms move equally many bytes through one pool, taking turns: *ours* (tensors to verified tensors:
encoding, digest, read-back of the size, identity and digest check), *bare* (`put_from` and `get_into` on registered
memory, which verify nothing), and *naive* (the library's copying `put` and `get`, hashed as one would write it first).
"""

import ctypes
import os
import statistics
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import blake3
import torch

from eyas_contract.errors import Bug, Transient, UserError
from eyas_contract.ids import JobUid, ObjectKey, object_key, sample_id
from eyas_contract.refs import PromptTask, SampleRef
from eyas_runtime.features.blobs import mooncake_codes as codes
from eyas_runtime.features.blobs.mooncake import MooncakeBlobStore
from eyas_runtime.features.blobs.mooncake_client import ClientSettings, MooncakeClient
from eyas_runtime.features.store import FeatureStore, SampleMetadata

PAIRS_MIN: Final = 5
WARM_UP_ROUNDS: Final = 2
"""Fresh segment memory costs page faults at its first use; after these rounds the same memory serves again."""
ROUNDS_STORED: Final = 2
"""Rounds whose objects stay in the pool while the next one runs, so that no round waits for transfer leases to end."""
REMOVE_SECONDS: Final = 60.0
JOB: Final = JobUid("benchstore0000")
ARMS: Final = ("ours", "bare", "naive")
METADATA: Final = SampleMetadata(num_tokens=1, num_supervised=1)
Seconds = float


def benchmark_store(
    settings: ClientSettings,
    *,
    object_bytes: int = 8 << 20,
    objects: int = 16,
    pairs: int = 9,
    digest: str = "blake3",
    digest_threads: int = 1,
    streams: int = 2,
) -> dict[str, object]:
    """Throughput of the three arms against the Mooncake pool of `settings`, and the ratios of ours to the others.

    Each round puts `objects` objects of `object_bytes` with every arm, then fetches them with every arm; the pool must
    hold nine times that. `streams` objects are under way at a time in every arm, as producers and ranks have them.
    Returns bytes per second (medians) and ratios (medians over rounds, with extremes).
    """
    if pairs < PAIRS_MIN:
        raise UserError(f"at least {PAIRS_MIN} rounds are needed for a median that says something, not {pairs}")
    blobs = MooncakeBlobStore(settings)
    store = FeatureStore(blobs, job_uid=JOB, digest=digest, digest_threads=digest_threads, retain_on_release=True)
    try:
        bench = _Bench(store, blobs.raw_client(), object_bytes=object_bytes, objects=objects, streams=streams)
        try:
            for number in range(WARM_UP_ROUNDS):
                bench.round(number)
            rounds = [bench.round(number) for number in range(1, pairs + 1)]
        finally:
            bench.close()
    finally:
        store.close()
    total = object_bytes * objects
    result: dict[str, object] = {
        "object_bytes": object_bytes, "objects": objects, "pairs": pairs, "digest": digest,
        "streams": streams, "cores": os.cpu_count(),
    }  # fmt: skip
    for operation in ("put", "get"):
        times = {arm: [found[operation, arm] for found in rounds] for arm in ARMS}
        result[operation] = {f"{arm}_bytes_per_second": total / statistics.median(times[arm]) for arm in ARMS} | {
            f"ours_to_{arm}": _ratio(times["ours"], times[arm]) for arm in ("bare", "naive")
        }
    return result


def _ratio(ours: list[Seconds], other: list[Seconds]) -> dict[str, float]:
    ratios = [theirs / mine for mine, theirs in zip(ours, other, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


class _Bench:
    """Inputs and arms; each arm returns the seconds that it took."""

    def __init__(
        self, store: FeatureStore, client: MooncakeClient, *, object_bytes: int, objects: int, streams: int
    ) -> None:
        self._store = store
        self._client = client
        self._bytes = object_bytes
        self._tensors = [
            {"hidden_state": torch.randint(0, 255, (object_bytes,), dtype=torch.uint8)} for _ in range(objects)
        ]
        # Copies: the store registers its tensors itself, and every arm must read memory that is equally cold.
        self._sources = [tensors["hidden_state"].clone() for tensors in self._tensors]
        self._streams = streams
        self._stored: deque[list[ObjectKey]] = deque()
        self._threads = ThreadPoolExecutor(streams, thread_name_prefix="bench")
        self._targets = [torch.empty(object_bytes, dtype=torch.uint8) for _ in range(streams)]
        for tensor in (*self._sources, *self._targets):
            if not client.register(tensor.data_ptr(), object_bytes):
                raise UserError(f"Mooncake would not register {object_bytes} bytes; use smaller objects")

    def round(self, number: int) -> dict[tuple[str, str], Seconds]:
        """Seconds of every arm over all objects; arms take turns at each `streams` objects, in changing order."""
        keys = {arm: [_new_key() for _ in self._tensors] for arm in ARMS}
        self._refs: dict[int, SampleRef] = {}
        self._digests: dict[int, bytes] = {}
        seconds = dict.fromkeys([(operation, arm) for operation in ("put", "get") for arm in ARMS], 0.0)
        arms = {
            ("put", "ours"): self._put_ours, ("put", "bare"): self._put_bare, ("put", "naive"): self._put_naive,
            ("get", "ours"): self._get_ours, ("get", "bare"): self._get_bare, ("get", "naive"): self._get_naive,
        }  # fmt: skip
        for operation in ("put", "get"):
            for start in range(0, len(self._tensors), self._streams):
                some = range(start, min(start + self._streams, len(self._tensors)))
                first = (number + start // self._streams) % len(ARMS)
                for arm in ARMS[first:] + ARMS[:first]:
                    begun = time.perf_counter()
                    list(self._threads.map(arms[operation, arm], some, [keys[arm][index] for index in some]))
                    seconds[operation, arm] += time.perf_counter() - begun
        self._stored.append([key for some in keys.values() for key in some])
        for ref in self._refs.values():
            self._store.abort(ref)
        while len(self._stored) > ROUNDS_STORED:
            self._remove(self._stored.popleft())
        return seconds

    def _put_ours(self, index: int, key: ObjectKey) -> None:
        self._refs[index] = self._store.put(self._tensors[index], _task(index, key), METADATA)

    def _get_ours(self, index: int, key: ObjectKey) -> None:
        _, handle = self._store.get(self._refs[index])
        self._store.release(handle)

    def _put_bare(self, index: int, key: ObjectKey) -> None:
        _expect(self._client.put_from(key, [self._sources[index].data_ptr()], [self._bytes]), 0)

    def _get_bare(self, index: int, key: ObjectKey) -> None:
        target = self._targets[index % self._streams]
        _expect(self._client.get_into(key, target.data_ptr(), self._bytes), self._bytes)

    def _put_naive(self, index: int, key: ObjectKey) -> None:
        data = ctypes.string_at(self._tensors[index]["hidden_state"].data_ptr(), self._bytes)
        self._digests[index] = blake3.blake3(data).digest()
        _expect(self._client.copying_put(key, data), 0)

    def _get_naive(self, index: int, key: ObjectKey) -> None:
        data = self._client.copying_get(key)
        if blake3.blake3(data).digest() != self._digests[index]:
            raise Bug("the naive arm read other bytes than it wrote")
        torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def _remove(self, keys: list[ObjectKey]) -> None:
        """Make room: delete `keys`, as soon as the transfer leases on them have ended."""
        ends = time.monotonic() + REMOVE_SECONDS
        while keys and time.monotonic() < ends:
            keys = [key for key in keys if not self._store.blobs.delete(key)]
            time.sleep(0.05)

    def close(self) -> None:
        """Leave the pool as it was found."""
        self._threads.shutdown()
        for keys in self._stored:
            self._remove(keys)


def _expect(code: int, expected: int) -> None:
    if code != expected:
        raise Transient(f"Mooncake answered {codes.describe(code)} to the benchmark; is the pool large enough?")


def _new_key() -> ObjectKey:
    return object_key(JOB, 0, 1, os.urandom(16).hex())


def _task(sequence: int, key: ObjectKey) -> PromptTask:
    return PromptTask(
        sample_id=sample_id(sequence), sequence=sequence, prompt_index=0, file_index=0, offset=0, num_tokens=1,
        capture=True, key=key, generation=1,
    )  # fmt: skip
