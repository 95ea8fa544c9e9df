"""The error tree: few classes, each named for what the catcher does about it.

Every class knows the exit code of a process that it ends, so that the operator reads a code and not a log.
"""

from typing import ClassVar

from eyas_contract.exits import Exit


class EyasError(Exception):
    """Base of all errors that Eyas raises on purpose."""

    exit_code: ClassVar[Exit] = Exit.CRASH


class UserError(EyasError):
    """The job, a file or a flag is wrong: say what and where, never retry.

    The message is one sentence that names the field or file and says what to do.
    """

    exit_code = Exit.CONFIG


class Transient(EyasError):
    """The other side is away or busy: wait and repeat the same call."""

    exit_code = Exit.TEMPORARY

    def __init__(self, message: str, *, retry_after_seconds: float = 0.2) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StoreFull(Transient):
    """The feature store has no room now: flow control, not a failure."""


class Conflict(EyasError):
    """The state moved between read and write: read again and decide again."""


class Fenced(EyasError):
    """A newer attempt, incarnation or store epoch took over: stop touching anything."""

    exit_code = Exit.FENCED


class Closed(EyasError):
    """This incarnation of the gang is closed: the ranks start again, the pod stays."""


class Unauthenticated(EyasError):
    """The credential is missing or wrong for this endpoint."""

    exit_code = Exit.CONFIG


class NotReadable(EyasError, KeyError):
    """The object behind a ref is freed, superseded, or was never written: the sample is lost, capture again."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class Corrupt(EyasError):
    """Bytes do not match their digest, or a file its format: never train on it, never load it."""


class Damaged(Corrupt):
    """The metadata database is no database any more: leave it where it is and begin the next store epoch.

    Never for a full disk, an input/output error, a missing permission or a file in use: those may heal.
    """

    exit_code = Exit.DAMAGED


class Bug(EyasError):
    """Our own assertion failed: crash and be restarted."""
