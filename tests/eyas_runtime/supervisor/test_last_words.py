"""What a pod says at its end: a culprit in its own words, memory in the kernel's, a killed gang without any blame."""

import signal

import pytest

from eyas_contract.wire import KILLED_WITH_GANG, OUT_OF_MEMORY, Termination
from eyas_runtime.supervisor.last_words import MEMORY_SENTENCE, last_words, reason
from eyas_runtime.supervisor.policy import Cause, Ended, Next, Verdict

KILL = -int(signal.SIGKILL)
TOLD = Termination(exit_code=1, klass="Hang", message="no work", incarnation="i", step=7)


def verdict(code: int, culprit: Ended | None) -> Verdict:
    return Verdict(next=Next.LEAVE, code=code, culprit=culprit)


def child(code: int, *, out_of_memory: bool = False) -> Ended:
    return Ended(slot=0, process="p", code=code, cause=Cause.OWN, out_of_memory=out_of_memory)


def test_child_that_left_a_line_speaks_for_itself() -> None:
    found = last_words(verdict(1, child(1)), TOLD, stopping=False, prefix="last: ")
    assert (found.klass, found.message, found.incarnation, found.step) == ("Hang", "last: no work", "i", 7)


@pytest.mark.parametrize(
    ("code", "culprit", "stopping", "klass", "sentence"),
    [
        (137, child(KILL), False, "Crash", "SIGKILL"),
        (137, child(KILL, out_of_memory=True), False, OUT_OF_MEMORY, MEMORY_SENTENCE),
        (137, None, False, KILLED_WITH_GANG, "killed with its gang"),
        (137, None, True, "Crash", "stopped as asked"),
        (75, None, False, "Drained", "killed with its gang"),
        (75, None, True, "Drained", "stopped as asked"),
        (75, child(75), True, "Drained", "75"),
    ],
)
def test_without_a_line_the_verdict_speaks(
    code: int, culprit: Ended | None, stopping: bool, klass: str, sentence: str
) -> None:
    found = last_words(verdict(code, culprit), None, stopping=stopping)
    assert (found.exit_code, found.klass) == (code, klass)
    assert sentence in found.message
    assert found.message == reason(verdict(code, culprit), None, stopping=stopping)
