"""The fake capture of drills and crash suites: no target, no torch, one small blob for each prompt.

A blob is the prompt's own text behind its sequence number, so the fake trainer's weights depend on every byte of every
prompt and on its place. The loop around it, the leases, the store and the commits are the real ones.
"""

import base64
import time
from array import array
from collections.abc import Sequence
from typing import Final

import blake3
import msgspec

from eyas_contract.config import JobConfig
from eyas_contract.errors import Bug, Conflict, UserError
from eyas_contract.refs import PromptTask, SampleRef
from eyas_contract.wire import Fingerprint, Inputs, Prepared
from eyas_runtime import digests
from eyas_runtime.capture.engine import Advance, Features, Outcome
from eyas_runtime.capture.parts import Parts
from eyas_runtime.capture.prompts import Prompt, read_at, scan
from eyas_runtime.features.blobs.port import BlobStore

BYTES_PER_TOKEN: Final = 16
HEADER_BYTES: Final = 1024
VOCABULARY: Final = 256
SECONDS_MAX: Final = 60.0


def fake_parts(config: JobConfig, *, seconds: float) -> Parts:
    """What a fake producer is made of; each sample takes `seconds`. Raises `UserError`."""
    if not 0 <= seconds <= SECONDS_MAX:
        raise UserError(f"a fake capture takes 0 to {SECONDS_MAX:g} seconds, not {seconds:g}")
    if config.data.features or config.evaluation is not None:
        raise UserError("the fake capture knows data.prompts only: neither data.features nor evaluation")
    return Parts(engine=FakeCapture(seconds), prepare=fake_prepare, sink=lambda blobs: FakeSink(config, blobs))


def payload_of(prompt: Prompt) -> bytes:
    """The bytes that stand for a prompt's features."""
    return msgspec.json.encode(prompt)


def fake_prepare(config: JobConfig, inputs: Inputs, advance: Advance) -> Prepared:
    """Where every prompt is and how long; see `Prepare`. Raises `UserError` naming the first wrong line."""
    files, offsets, tokens, supervised = array("H"), array("Q"), array("I"), array("I")
    for located in scan(config.data.prompts):
        count = tokens_of(payload_of(located.prompt))
        files.append(located.file_index)
        offsets.append(located.offset)
        tokens.append(count)
        supervised.append(count - 1)
        advance()
    return Prepared(
        inputs=inputs,
        prompt_count=len(files),
        file_indices=_base64(files),
        offsets=_base64(offsets),
        token_counts=_base64(tokens),
        supervised_counts=_base64(supervised),
        draft_to_target=_base64(array("q", [0] * min(config.draft.vocab_size, VOCABULARY))),
        target_vocab_size=VOCABULARY,
        hidden_size=1,
        bytes_per_token=BYTES_PER_TOKEN,
        bytes_per_sample=HEADER_BYTES,
        held_out_count=0,
        truncated_prompts=0,
        empty_prompts=(),
    )


def tokens_of(payload: bytes) -> int:
    """Pretended token count: at least two, so that one is supervised."""
    return max(2, -(-len(payload) // BYTES_PER_TOKEN))


def _base64(column: "array[int]") -> str:
    return base64.b64encode(column.tobytes()).decode("ascii")


class FakeCapture:
    """`CaptureEngine` that computes nothing."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def fingerprint(self) -> Fingerprint:
        """See `CaptureEngine`."""
        facts = {"capture": "fake"}
        return Fingerprint(facts=facts, digest=f"blake3:{blake3.blake3(msgspec.json.encode(facts)).hexdigest()}")

    def capture(self, tasks: Sequence[PromptTask], padded_length: int, advance: Advance) -> list[Outcome]:
        """See `CaptureEngine`."""
        outcomes = []
        for task in tasks:
            if task.capture:
                time.sleep(self._seconds)
                advance()
                outcomes.append(Outcome(task=task, features={}))
        return outcomes


class FakeSink:
    """`FeatureSink` of raw blobs."""

    def __init__(self, config: JobConfig, blobs: BlobStore) -> None:
        self._config, self._blobs = config, blobs

    def put(self, task: PromptTask, features: Features, *, fingerprint: str) -> SampleRef:
        """See `FeatureSink`."""
        if task.key is None:
            raise Bug(f"{task.sample_id} is to be captured but has no key")
        payload = payload_of(read_at(self._config.data.prompts, task.file_index, task.offset).prompt)
        count = tokens_of(payload)
        if count != task.num_tokens:
            raise UserError(f"prompt {task.prompt_index} changed since this job was prepared: start a new job")
        head = b"%d\n" % task.sequence
        digest, payload_digest = digests.digest_pair([head], [payload], self._config.store.digest)
        length = len(head) + len(payload)
        try:
            self._blobs.put(task.key, [head, payload])
        except Conflict:
            # A put whose answer was lost: the same prompt gives the same bytes.
            if self._blobs.size(task.key) != length:
                raise
        return SampleRef(
            sample_id=task.sample_id,
            sequence=task.sequence,
            key=task.key,
            generation=task.generation,
            digest=digest,
            payload_digest=payload_digest,
            length=length,
            num_tokens=count,
            num_supervised=count - 1,
            feature_specs=(),
            strategy="fake",
            fingerprint=fingerprint,
        )
