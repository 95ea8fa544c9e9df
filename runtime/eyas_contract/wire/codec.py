"""Messages to and from JSON bytes; a size limit comes before parsing."""

from typing import TypeVar

import msgspec

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import UserError

M = TypeVar("M", bound=msgspec.Struct)


def encode(message: msgspec.Struct) -> bytes:
    """JSON bytes of a message."""
    return msgspec.json.encode(message)


def decode(raw: bytes, kind: type[M], *, bytes_max: int) -> M:
    """Decode and validate. Raises `UserError` naming the field; `bytes_max` is checked before parsing."""
    if len(raw) > bytes_max:
        raise UserError(f"{kind.__name__} of {len(raw)} bytes is over the limit of {bytes_max}")
    try:
        return msgspec.json.decode(raw, type=kind)
    except UNDECODABLE as error:
        raise UserError(f"{kind.__name__} is not valid: {error}") from error
