"""Decisions of the supervisor as pure functions: what a life's end means, and whether another life may follow.

A *life* is one start of all children of the pod, until all of them are gone. They live and die together: ranks are
useless without each other, and every other role has one child.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from eyas_contract.exits import FINAL, Exit

UPTIME_PROGRESS_SECONDS: Final = 30.0
"""A child without a step counter that lived so long is taken to have worked."""


class Cause(StrEnum):
    """Why a child ended."""

    OWN = "own"
    """By itself, or by somebody unknown."""
    KILLED = "killed"
    """We killed it, because another child's end or a closed incarnation made it useless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end of one child."""

    slot: int
    process: str
    code: int
    """Exit code, or -signal."""
    cause: Cause
    out_of_memory: bool = False
    """The kernel killed it because the container's memory limit was reached."""
    words: str = ""
    """What it told of its end on stderr, fit to be shown."""


class Next(StrEnum):
    """What follows a life."""

    LEAVE = "leave"
    RESTART = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a finished life means."""

    next: Next
    code: int
    """Exit code to leave with, now or when the budget is spent."""
    culprit: Ended | None
    """The child whose end decided; None when all is done, or when we ended the life ourselves."""


def exit_code(code: int) -> int:
    """The code a shell would report: 128 + signal for a death by signal."""
    return code if code >= 0 else 128 - code


def judge(ends: Sequence[Ended], *, stopping: bool, gang: bool) -> Verdict:
    """Judge a life of which every child has ended, in the order of their ends.

    Codes that nobody can repair in place win over crashes, whoever came first; after a stop was asked for nothing is
    restarted, and a role that is no gang and answers 0 was stopped, not done.
    """
    own = [end for end in ends if end.cause is Cause.OWN]
    for code in (Exit.CONFIG, Exit.FENCED):
        found = next((end for end in own if end.code == code), None)
        if found is not None:
            return Verdict(next=Next.LEAVE, code=int(code), culprit=found)
    failed = next((end for end in own if end.code != Exit.DONE), None)
    if failed is None and own:
        if len(own) < len(ends):
            # A sibling had to be killed: its work is not known to be done.
            return Verdict(next=_unless(stopping), code=int(Exit.TEMPORARY), culprit=None)
        done = gang or not stopping
        return Verdict(next=Next.LEAVE, code=int(Exit.DONE if done else Exit.TEMPORARY), culprit=None)
    if failed is None:
        return Verdict(next=_unless(stopping), code=128 + signal.SIGKILL, culprit=None)
    leave = stopping or failed.code in FINAL
    return Verdict(next=Next.LEAVE if leave else Next.RESTART, code=exit_code(failed.code), culprit=failed)


def _unless(stopping: bool) -> Next:
    return Next.LEAVE if stopping else Next.RESTART


def ends_siblings_at_once(code: int) -> bool:
    """Whether a child's own end makes its siblings useless now: not while they may still be saving or finishing."""
    return code not in (Exit.DONE, Exit.TEMPORARY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Restarts in place since the last progress."""

    restarts_max: int
    base_seconds: float
    max_seconds: float
    used: int = 0

    def spend(self, *, progressed: bool) -> "tuple[Budget, float] | None":
        """The budget after one more restart and the pause before it; None when it is spent.

        Progress gives the whole budget back. The first restart is immediate, later ones wait base, 2 base, 4 base ...
        """
        used = 0 if progressed else self.used
        if used >= self.restarts_max:
            return None
        pause = 0.0 if used == 0 else min(self.base_seconds * 2.0 ** min(used - 1, 30), self.max_seconds)
        return replace(self, used=used + 1), pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the job was at the last failure: consumers are measured by the durable step, others by uptime."""

    durable_step: int | None = None

    def advance(self, *, durable_step: int | None, uptime_seconds: float) -> "tuple[Progress, bool]":
        """The mark to remember and whether the life that just ended made progress.

        Uptime is no progress for ranks: a gang that hangs and is killed every few minutes would restart for ever.
        """
        if durable_step is None:
            # No step counter: the role is not a gang.
            return self, uptime_seconds >= UPTIME_PROGRESS_SECONDS
        moved = self.durable_step is not None and durable_step > self.durable_step
        return Progress(durable_step=durable_step), moved
