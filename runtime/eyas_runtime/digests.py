"""Digests of bytes, written `<algorithm>:<hex>` everywhere: refs, manifests, receipts.

BLAKE3 is the default: cryptographic, so a digest in the authenticated metadata store makes bytes from an untrusted
store as good as local ones. xxh3-128 may be chosen where nobody on the fabric is hostile: it finds every accident and
no attack. Both hash pieces in turn, so hashing can overlap a transfer.
"""

import hmac
from collections.abc import Iterable
from typing import Final, Literal, Protocol

import blake3
import xxhash

from eyas_contract.errors import Corrupt, UserError

Buffer = bytes | bytearray | memoryview
Algorithm = Literal["blake3", "xxh3-128"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("blake3", "xxh3-128")
HEX_DIGITS: Final[dict[str, int]] = {"blake3": 64, "xxh3-128": 32}

PIECE_BYTES: Final = 1 << 20
"""Bytes hashed at a time: small enough to stay in the CPU's cache when two digests read the same bytes."""


class Hasher(Protocol):
    """What both libraries offer."""

    def update(self, data: memoryview, /) -> object:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """The digest of all bytes so far; more may follow."""


def hasher(algorithm: str, *, threads: int = 1) -> Hasher:
    """A fresh hasher. `threads` above 1 lets BLAKE3 use that many cores for large pieces. Raises `UserError`."""
    if algorithm == "blake3":
        return blake3.blake3(max_threads=threads)
    if algorithm == "xxh3-128":
        return xxhash.xxh3_128()
    raise UserError(f"digest algorithm {algorithm[:40]!r} is none of {', '.join(ALGORITHMS)}")


def digest_of(parts: Iterable[Buffer], algorithm: str = "blake3", *, threads: int = 1) -> str:
    """`<algorithm>:<hex>` over the concatenation of `parts`."""
    state = hasher(algorithm, threads=threads)
    for part in parts:
        state.update(memoryview(part).cast("B"))
    return f"{algorithm}:{state.hexdigest()}"


def algorithm_of(digest: str) -> str:
    """The algorithm that `digest` names. Raises `Corrupt` for a text that is no digest of ours."""
    algorithm, separator, text = digest.partition(":")
    if not separator or len(text) != HEX_DIGITS.get(algorithm, -1) or not set(text) <= set("0123456789abcdef"):
        raise Corrupt(f"{digest[:80]!r} is not a digest of the form <algorithm>:<hex>")
    return algorithm


def check(found: str, expected: str, what: str) -> None:
    """Raise `Corrupt`, naming `what`, unless the two digests are equal."""
    if not hmac.compare_digest(found.encode("ascii"), expected.encode("ascii")):
        raise Corrupt(f"{what} does not match its digest: found {found[:24]}…, expected {expected[:24]}…")


def digest_pair(
    head: Iterable[Buffer], payload: Iterable[Buffer], algorithm: str, *, threads: int = 1
) -> tuple[str, str]:
    """Digests of `head` + `payload` by `algorithm`, and of `payload` alone by xxh3-128, reading the bytes once.

    The second only shows that two captures of one sample differ, so it need not resist an attacker; the first does.
    """
    whole = hasher(algorithm, threads=threads)
    alone = xxhash.xxh3_128()
    for part in head:
        whole.update(memoryview(part).cast("B"))
    for part in payload:
        view = memoryview(part).cast("B")
        for start in range(0, len(view), PIECE_BYTES):
            piece = view[start : start + PIECE_BYTES]
            whole.update(piece)
            alone.update(piece)
    return f"{algorithm}:{whole.hexdigest()}", f"xxh3-128:{alone.hexdigest()}"
