"""Bytes that are no message, for everything that decodes bytes of others."""

from typing import Final

UNDECODABLE: Final = {
    "nothing": b"",
    "torn": b'{"a":',
    "not UTF-8": b"\xff\xfe{}",
    "a name that is not UTF-8": b'{"\xff":1}',
    "a value that is not UTF-8": b'{"a":"\xff"}',
    "half of a surrogate pair": b'{"a":"\\ud800"}',
    "another type": b"[1]",
    "too deep for lists": b"[" * 200_000,
    "too deep for objects": b'{"a":' * 200_000,
}
"""By what is wrong with them."""
