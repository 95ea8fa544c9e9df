"""What an exit is called in the list of incidents: how and why, each once."""

import pytest

from eyas_contract import wire
from eyas_runtime.metadata.exits import describe_exit


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (-9, "", "rank 1 ended with SIGKILL"),
        (-9, "SIGKILL", "rank 1 ended with SIGKILL"),
        (-6, "SIGABRT: NCCL error", "rank 1 ended with SIGABRT: NCCL error"),
        (1, "exit code 137", "rank 1 ended with exit code 1: exit code 137"),
        (1, "SIGABRT: NCCL error", "rank 1 ended with exit code 1: SIGABRT: NCCL error"),
    ],
)
def test_how_and_why_a_rank_ended_are_said_once(code: int, reason: str, words: str) -> None:
    assert describe_exit(wire.ExitRequest(attempt=1, rank=1, process="p", code=code, reason=reason)) == words
