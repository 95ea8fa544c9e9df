"""What one rank has captured, in its own memory; what it has not, it captures when asked.

A sample that another rank captured, or that died with an earlier process, is captured again here with its whole group,
and must have the payload digest that was committed: the ranks share no memory, and need none. Samples of windows that
training has left behind are dropped.
"""

import base64
import sys
import threading
from array import array
from collections.abc import Sequence
from typing import Final

from eyas_contract import wire
from eyas_contract.config import JobConfig
from eyas_contract.errors import Corrupt
from eyas_contract.ids import sample_id
from eyas_contract.refs import PromptTask, SampleRef
from eyas_runtime import digests
from eyas_runtime.capture.engine import Advance, CaptureEngine, Features, Outcome
from eyas_runtime.capture.sink import metadata_of
from eyas_runtime.core.sequence import Schedule
from eyas_runtime.features.codec import tensors as codec
from eyas_runtime.features.codec.header import Identity
from eyas_runtime.features.local import LocalFeatureStore

WINDOWS_KEPT: Final = 1
"""Windows before that of the newest read whose samples stay: reads run one window ahead of training."""


class SharedEngine:
    """A `CaptureEngine` for several threads: one group at a time."""

    def __init__(self, engine: CaptureEngine) -> None:
        self._engine = engine
        self._lock = threading.Lock()

    def fingerprint(self) -> wire.Fingerprint:
        """See `CaptureEngine`."""
        return self._engine.fingerprint()

    def capture(self, tasks: Sequence[PromptTask], padded_length: int, advance: Advance) -> list[Outcome]:
        """See `CaptureEngine`."""
        with self._lock:
            return self._engine.capture(tasks, padded_length, advance)


class Captures:
    """`FeatureSink` of this process's producer and the reading half of its `FeatureSource`. Any thread."""

    def __init__(self, config: JobConfig, engine: CaptureEngine) -> None:
        self._config = config
        self._engine = engine
        self._store = LocalFeatureStore(job_uid=config.job_uid, digest=config.store.digest, retain_on_release=True)
        self._lock = threading.Lock()
        self._keys: dict[int, list[str]] = {}
        self._again = threading.Lock()
        self._recaptured: dict[int, Features] = {}

    def put(self, task: PromptTask, features: Features, *, fingerprint: str) -> SampleRef:
        """See `FeatureSink`."""
        ref = self._store.put(features, task, metadata_of(features, fingerprint))
        with self._lock:
            self._keys.setdefault(task.sequence, []).append(ref.key)
        return ref

    def get(self, ref: SampleRef, groups: "Groups") -> Features:
        """The sample behind `ref`. Raises `Corrupt` when it cannot be captured again with equal bits."""
        self._drop_before(groups.first_kept(ref.sequence))
        with self._lock:
            is_here = ref.key in self._keys.get(ref.sequence, ())
        if is_here:
            tensors, handle = self._store.get(ref)
            self._store.release(handle)
            return tensors
        return self._capture_again(ref, groups)

    def close(self) -> None:
        """Forget everything."""
        self._store.close()

    def _capture_again(self, ref: SampleRef, groups: "Groups") -> Features:
        with self._again:
            features = self._recaptured.pop(ref.sequence, None)
            if features is None:
                tasks, padded_length = groups.of(ref.sequence)
                outcomes = self._engine.capture(tasks, padded_length, lambda: None)
                found = {outcome.task.sequence: outcome.features for outcome in outcomes}
                features = found.pop(ref.sequence)
                self._recaptured = {sequence: other for sequence, other in found.items() if other is not None}
        if features is None:
            raise Corrupt(f"{ref.sample_id} cannot be captured again: its content fails here")
        digests.check(self._payload_digest(features, ref), ref.payload_digest, ref.sample_id)
        return features

    def _payload_digest(self, features: Features, ref: SampleRef) -> str:
        identity = Identity(
            job_uid=self._config.job_uid, sample_id=ref.sample_id, sequence=ref.sequence, generation=ref.generation
        )
        encoded = codec.encode(features, identity)
        return digests.digest_pair(encoded.head, encoded.payload, self._config.store.digest)[1]

    def _drop_before(self, sequence: int) -> None:
        with self._lock:
            old = [keys for number, keys in list(self._keys.items()) if number < sequence]
            self._keys = {number: keys for number, keys in self._keys.items() if number >= sequence}
        for key in (key for keys in old for key in keys):
            self._store.abort(key, "trained")


class Groups:
    """Which prompts make a capture group: what a lease would say, from the prepared inputs."""

    def __init__(self, config: JobConfig, prepared: wire.Prepared) -> None:
        self._schedule = Schedule.of_job(config, prepared)
        self._files = _column(prepared.file_indices, "H")
        self._offsets = _column(prepared.offsets, "Q")
        self._tokens = _column(prepared.token_counts, "I")

    def of(self, sequence: int) -> tuple[list[PromptTask], int]:
        """Every member of the group of `sequence`, all to be captured, and the padded length."""
        members = self._schedule.group(self._schedule.group_of(sequence))
        tasks = [self._task(number) for number in members]
        return tasks, max(task.num_tokens for task in tasks)

    def first_kept(self, sequence: int) -> int:
        """First sequence number that may still be read once `sequence` was."""
        return self._schedule.end_of(max(0, self._schedule.step_of(sequence) - 1 - WINDOWS_KEPT))

    def _task(self, sequence: int) -> PromptTask:
        prompt = self._schedule.prompt_of(sequence)
        return PromptTask(
            sample_id=sample_id(sequence),
            sequence=sequence,
            prompt_index=prompt,
            file_index=self._files[prompt],
            offset=self._offsets[prompt],
            num_tokens=self._tokens[prompt],
            capture=True,
        )


def _column(text: str, kind: str) -> "array[int]":
    values: array[int] = array(kind, base64.b64decode(text))
    if sys.byteorder == "big":
        values.byteswap()
    return values
