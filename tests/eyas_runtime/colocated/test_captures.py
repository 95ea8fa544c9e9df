"""A rank without a store: what it did not capture itself it captures again, with the committed bits or not at all."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import torch

from eyas_contract.config import JobConfig
from eyas_contract.errors import Corrupt
from eyas_contract.ids import JobUid, object_key
from eyas_contract.refs import PromptTask, SampleRef
from eyas_contract.wire import Prepared
from eyas_runtime.capture.build import make_engine
from eyas_runtime.capture.engine import Advance, Features, Outcome
from eyas_runtime.capture.prepare import prepare
from eyas_runtime.colocated.captures import Captures, Groups, SharedEngine
from eyas_runtime.inputs import digest_inputs
from support.tiny_target import tiny_job, write_tiny_prompts


@pytest.fixture
def job(tmp_path: Path, target: Path) -> JobConfig:
    torch.set_num_threads(1)
    return tiny_job(tmp_path, target=target, prompts=(write_tiny_prompts(tmp_path / "p.jsonl", 10),))


@pytest.fixture
def prepared(job: JobConfig) -> Prepared:
    return prepare(job, digest_inputs(job), lambda: None)


class Counting(SharedEngine):
    """The real engine, counted."""

    calls = 0

    def capture(self, tasks: Sequence[PromptTask], padded_length: int, advance: Advance) -> list[Outcome]:
        self.calls += 1
        return super().capture(tasks, padded_length, advance)


def keyed(task: PromptTask, job_uid: str) -> PromptTask:
    key = object_key(JobUid(job_uid), 1, task.sequence + 1, f"{task.sequence:032x}")
    return msgspec.structs.replace(task, key=key, generation=task.sequence + 1)


def captured(job: JobConfig, groups: Groups, engine: SharedEngine, into: Captures) -> dict[int, SampleRef]:
    """Every sample captured in its group, as a producer does it, into `into`."""
    refs: dict[int, SampleRef] = {}
    for first in range(0, 10, job.data.group_size):
        tasks, padded = groups.of(first)
        for outcome in engine.capture([keyed(task, job.job_uid) for task in tasks], padded, lambda: None):
            assert outcome.features is not None
            refs[outcome.task.sequence] = into.put(outcome.task, outcome.features, fingerprint="f")
    return refs


def equal(left: Features, right: Features) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_sample_of_another_rank_is_captured_again_with_equal_bits(job: JobConfig, prepared: Prepared) -> None:
    engine = Counting(make_engine(job, device=torch.device("cpu")))
    groups = Groups(job, prepared)
    mine, other = Captures(job, engine), Captures(job, engine)
    refs = captured(job, groups, engine, other)
    for sequence in range(4):
        assert equal(mine.get(refs[sequence], groups), other.get(refs[sequence], groups))


def test_group_is_captured_again_once_for_all_its_members(job: JobConfig, prepared: Prepared) -> None:
    engine = Counting(make_engine(job, device=torch.device("cpu")))
    groups = Groups(job, prepared)
    refs = captured(job, groups, engine, Captures(job, engine))
    mine = Captures(job, engine)
    before = engine.calls
    mine.get(refs[0], groups)
    mine.get(refs[1], groups)
    assert engine.calls == before + 1


def test_own_samples_are_not_captured_again_until_training_left_them(job: JobConfig, prepared: Prepared) -> None:
    engine = Counting(make_engine(job, device=torch.device("cpu")))
    groups = Groups(job, prepared)
    mine = Captures(job, engine)
    refs = captured(job, groups, engine, mine)
    before = engine.calls
    for sequence in range(8):
        mine.get(refs[sequence], groups)
    assert engine.calls == before
    mine.get(refs[9], groups)
    assert engine.calls == before
    mine.get(refs[0], groups)
    assert engine.calls == before + 1


def test_other_bits_than_committed_are_corrupt(job: JobConfig, prepared: Prepared) -> None:
    engine = SharedEngine(make_engine(job, device=torch.device("cpu")))
    groups = Groups(job, prepared)
    refs = captured(job, groups, engine, Captures(job, engine))
    forged = msgspec.structs.replace(refs[0], payload_digest=refs[1].payload_digest)
    with pytest.raises(Corrupt, match="s-000000000000"):
        Captures(job, engine).get(forged, groups)
