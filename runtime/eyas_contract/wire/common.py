"""What every message is made of: the base, bounded words, who speaks, and the error answer.

`wait_seconds` of a request asks the service to hold the call until there is news (long poll); it is capped by
`WAIT_SECONDS_MAX`.
"""

from typing import Annotated, Final, Literal

import msgspec

WAIT_SECONDS_MAX: Final = 20.0
STORE_EPOCH_HEADER: Final = "Eyas-Store-Epoch"
"""Sent by both sides; each refuses a lower one than it has seen."""

RoleName = Literal["producer", "consumer", "reader", "store"]

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
"""A small number that is never negative; checked when a message is decoded."""
Total = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]
"""What adds up over a whole job; exact also as a float, which is what metrics are made of."""
Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=1e12)]
Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Name = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,64}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,200}\Z")]
"""Printable ASCII without spaces: anything else, a zero byte above all, has a length of its own in a database."""


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base: immutable, keyword-only, unknown fields refused."""


class Empty(Message, frozen=True, kw_only=True):
    """No content."""


class Problem(Message, frozen=True, kw_only=True):
    """Body of every error answer."""

    kind: Literal["UserError", "Transient", "Conflict", "Fenced", "Closed", "Unauthenticated", "Bug"]
    message: str
    retry_after_seconds: float = 0.0


class Holder(Message, frozen=True, kw_only=True):
    """Who holds a lease. Of one index, the highest (ordinal, restart) is the live one; lower ones are fenced."""

    index: Count
    ordinal: Count
    restart: Count


class Fingerprint(Message, frozen=True, kw_only=True):
    """What fixes the bits of a capture or of a training step: device model, ISA, libraries, options, threads."""

    facts: dict[str, str]
    digest: Digest
