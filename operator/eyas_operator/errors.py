"""Errors of the operator: the contract's tree, and what to tell people about a spec that cannot work."""

from collections.abc import Iterable

from eyas_contract.errors import EyasError, UserError


class SpecError(UserError):
    """The job is wrong. `lines` has one sentence per error, each with its field path."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


class Refused(EyasError):
    """The cluster refuses what we ask for, in its own words: only people can change that (the job, a quota, a role).

    `subject` says what of the job was refused, in words that stay the same at the next try; empty for a read.
    """

    def __init__(self, message: str, *, subject: str = "") -> None:
        super().__init__(message)
        self.subject = subject
