"""What an answer of the API server means for who asked: our error classes by status and reason.

Everything that may heal by itself is `Transient`; an object that moved is `Conflict`; what only people can change (a
refused object, a missing permission, a quota) is `Refused`, with the API server's own sentence.
"""

from typing import Final

import msgspec

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Conflict, EyasError, Transient
from eyas_operator.errors import Refused

BUSY_SECONDS: Final = 1.0
RETRY_SECONDS_MAX: Final = 30.0
TOKEN_SECONDS: Final = 5.0
"""A refused token is read again from its file within a minute."""
_MESSAGE_CHARACTERS_MAX: Final = 600


class Missing(EyasError):
    """There is no such object."""


class Exists(Conflict):
    """An object of that name is there already."""


class Expired(Transient):
    """The version or the page token that was named is too old: list again from the beginning."""


class _Details(msgspec.Struct):
    retry_after: float = msgspec.field(name="retryAfterSeconds", default=0.0)


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""
    details: _Details | None = None


def problem_of(status: int, body: bytes, retry_after: str, asked: str) -> EyasError:
    """The error for an answer with HTTP `status` of 400 or more to the request `asked`."""
    said = _decode(body)
    message = f"{asked}: {status} {said.reason}: {said.message[:_MESSAGE_CHARACTERS_MAX]}"
    if status == 404:
        return Missing(message)
    if status == 409:
        return Exists(message) if said.reason == "AlreadyExists" else Conflict(message)
    if status == 410:
        return Expired(message, retry_after_seconds=0.0)
    if status == 401:
        return Transient(
            f"the API server does not accept the operator's token: {message}", retry_after_seconds=TOKEN_SECONDS
        )
    if status == 403:
        return Refused(f"the cluster does not allow it: {said.message[:_MESSAGE_CHARACTERS_MAX] or asked}")
    if status == 429 or status >= 500:
        return Transient(message, retry_after_seconds=_pause(said, retry_after))
    return Refused(f"the cluster refused it: {said.message[:_MESSAGE_CHARACTERS_MAX] or message}")


def _decode(body: bytes) -> _Status:
    try:
        return msgspec.json.decode(body, type=_Status)
    except UNDECODABLE:
        # A gateway's words, not the API server's.
        return _Status(message=body[:200].decode(errors="replace"))


def _pause(said: _Status, retry_after: str) -> float:
    """What the server asks for, in the header or in the body, within reason."""
    header = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
    asked = max(header, said.details.retry_after if said.details is not None else 0.0)
    return min(max(asked, BUSY_SECONDS), RETRY_SECONDS_MAX)
