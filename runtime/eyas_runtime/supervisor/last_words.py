"""What a supervisor says of a life's end: the sentence for people and logs, and the termination line of the pod. Pure.

The child that decided speaks for itself if it left a line. Else its code speaks, with what native code said on its
stderr; a process that the kernel killed for memory has no words of its own. A pod without a culprit names none: the
operator looks for it in the gang's other pods.
"""

from typing import Final

from eyas_contract.exits import Exit, describe
from eyas_contract.wire import KILLED_WITH_GANG, OUT_OF_MEMORY, Termination
from eyas_runtime.process import one_sentence
from eyas_runtime.supervisor.policy import Verdict

MEMORY_SENTENCE: Final = "killed by the kernel: the container's memory limit was reached"


def reason(verdict: Verdict, told: Termination | None, *, stopping: bool) -> str:
    """Why the life ended; `told` is the line that the deciding child left."""
    if verdict.culprit is None:
        return "stopped as asked" if stopping else "killed with its gang"
    if told is not None:
        return told.message
    if verdict.culprit.out_of_memory:
        return MEMORY_SENTENCE
    how = describe(verdict.culprit.code)
    return f"{how}: {verdict.culprit.words}" if verdict.culprit.words else how


def last_words(verdict: Verdict, told: Termination | None, *, stopping: bool, prefix: str = "") -> Termination:
    """The termination line of a pod that leaves; `prefix` comes before the reason."""
    message = one_sentence(prefix + reason(verdict, told, stopping=stopping))
    if verdict.culprit is None or told is None:
        return Termination(exit_code=verdict.code, klass=_klass(verdict, stopping=stopping), message=message)
    return Termination(
        exit_code=verdict.code, klass=told.klass, message=message, incarnation=told.incarnation, step=told.step
    )


def _klass(verdict: Verdict, *, stopping: bool) -> str:
    if verdict.code == Exit.TEMPORARY:
        return "Drained"
    if verdict.culprit is None:
        return "Crash" if stopping else KILLED_WITH_GANG
    return OUT_OF_MEMORY if verdict.culprit.out_of_memory else "Crash"
