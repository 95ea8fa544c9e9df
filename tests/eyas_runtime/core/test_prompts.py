"""Prepared arrays: decoded exactly, refused when they do not fit."""

import msgspec
import pytest

from eyas_contract.errors import UserError
from eyas_contract.ids import JobUid, object_key
from eyas_runtime.core.prompts import Prompts, capture_tasks, estimated_bytes
from eyas_runtime.core.sequence import Schedule
from support.jobs import BYTES_PER_SAMPLE, BYTES_PER_TOKEN, prepared

SCHEDULE = Schedule(prompts=10, window_size=4, group_size=4, epochs=1, max_steps=None, seed=7)


def test_arrays_are_what_prepare_wrote() -> None:
    prompts = Prompts.of(prepared(10))
    assert list(prompts.tokens) == [5 + index % 7 for index in range(10)]
    assert list(prompts.offsets) == [100 * index for index in range(10)]


@pytest.mark.parametrize("field", ["file_indices", "offsets", "token_counts", "supervised_counts"])
def test_array_that_does_not_fit_is_named(field: str) -> None:
    with pytest.raises(UserError, match=field):
        Prompts.of(msgspec.structs.replace(prepared(10), **{field: "AAAA"}))
    with pytest.raises(UserError, match=field):
        Prompts.of(msgspec.structs.replace(prepared(10), **{field: "not base64!"}))


def test_empty_set_is_refused() -> None:
    with pytest.raises(UserError, match="no prompt"):
        Prompts.of(prepared(0))


def test_tasks_cover_the_whole_group_and_the_shape_counts_every_member() -> None:
    prompts = Prompts.of(prepared(10))
    key = object_key(JobUid("testjob0001"), 1, 9, "0" * 32)
    tasks, padded_length = capture_tasks(SCHEDULE, prompts, 2, {9: (key, 9)})
    assert [task.sequence for task in tasks] == [8, 9]
    assert [task.capture for task in tasks] == [False, True]
    assert tasks[1].key == key
    assert padded_length == max(task.num_tokens for task in tasks)
    assert [task.prompt_index for task in tasks] == [SCHEDULE.prompt_of(8), SCHEDULE.prompt_of(9)]


def test_estimate_is_bytes_of_tokens_plus_the_fixed_part() -> None:
    prompts = Prompts.of(prepared(10))
    tokens = sum(prompts.tokens[SCHEDULE.prompt_of(sequence)] for sequence in range(3))
    assert estimated_bytes(SCHEDULE, prompts, range(3)) == tokens * BYTES_PER_TOKEN + 3 * BYTES_PER_SAMPLE
