"""A feature source of one rank that answers from a table, and refs that fit it."""

from collections.abc import Sequence

from eyas_contract import wire
from eyas_contract.ids import ObjectKey, sample_id
from eyas_contract.refs import SampleRef

Answer = bytes | Exception


def ref(sequence: int, generation: int = 1) -> SampleRef:
    """Sample `sequence`, captured for the `generation`-th time, under the key `key-<sequence>-<generation>`."""
    return SampleRef(
        sample_id=sample_id(sequence),
        sequence=sequence,
        key=ObjectKey(f"key-{sequence}-{generation}"),
        generation=generation,
        digest="",
        payload_digest="",
        length=1,
        num_tokens=4,
        num_supervised=2,
        feature_specs=(),
    )


class ScriptedSource:
    """Answers `get` from a table of bytes and errors; new captures appear when losses are reported."""

    def __init__(self, **answers: Answer) -> None:
        self.answers: dict[str, Answer] = dict(answers)
        self.reported: list[wire.LostSample] = []
        self.asked: list[tuple[int, ...]] = []
        self.got: list[str] = []
        self.failing: list[Exception] = []
        self.recaptured: dict[int, SampleRef] = {}

    def get(self, ref: SampleRef) -> bytes:
        self.got.append(ref.key)
        answer = self.answers[ref.key]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def report_lost(self, samples: Sequence[wire.LostSample]) -> None:
        if self.failing:
            raise self.failing.pop()
        self.reported.extend(samples)

    def current(self, step: int, version: int, sequences: Sequence[int], *, wait_seconds: float) -> wire.RefsReply:
        if self.failing:
            raise self.failing.pop()
        self.asked.append(tuple(sequences))
        found = tuple(self.recaptured[sequence] for sequence in sequences if sequence in self.recaptured)
        return wire.RefsReply(refs=found, pending=tuple(s for s in sequences if s not in self.recaptured))

    def close(self) -> None: ...
