"""What Mooncake's return codes mean for us: the table of rule 7, pure and complete for the codes that calls return.

Whatever is not in a table is `Bug`: an unknown answer of the store must stop the role, never be taken for success.
"""

from typing import Final

from eyas_contract.errors import Bug, EyasError, NotReadable, StoreFull, Transient

OK: Final = 0
NO_SPACE: Final = -200
NOT_READY: Final = -703
NOT_FOUND: Final = -704
EXISTS: Final = -705
LEASED: Final = -706
LEASE_EXPIRED: Final = -707
BUSY: Final = -714
TRANSFER: Final = -800

NAMES: Final[dict[int, str]] = {
    -1: "internal error", -10: "buffer overflow", -101: "segment not found", -102: "segment exists",
    -103: "client not registered", -200: "no space", -400: "invalid key", -500: "write failed", -600: "invalid size",
    -601: "illegal client", -700: "write refused", -701: "read refused", -702: "invalid replica",
    -703: "replica not ready", -704: "not found", -705: "exists", -706: "leased", -707: "lease expired",
    -708: "replication task", -709: "replication task", -710: "replica missing", -711: "replica exists",
    -712: "replica gone", -713: "not local", -714: "busy", -800: "transfer failed", -801: "checksum mismatch",
    -900: "master not reachable", -901: "master did not answer", -1010: "master not serving", -1011: "wrong mode",
    -1700: "tenant quota", -1701: "tenant unknown",
}  # fmt: skip

AWAY: Final = frozenset({-900, -901, -1010})
"""The control plane is away: wait."""
_FULL: Final = frozenset({NO_SPACE, -1700})
_LOST: Final = frozenset({NOT_READY, NOT_FOUND, -702, -710, -712, TRANSFER, -801})
"""The object, or the node that held it, is gone: capture again."""
RETRIED_READS: Final = frozenset({LEASE_EXPIRED, TRANSFER})
"""Read once more at once: a dropped connection or an expired lease says nothing about the object."""
_WAIT: Final = AWAY | {-101, -103, -700, -701, LEASE_EXPIRED, -708, -709, BUSY}
"""A client or segment that the master does not know (any more, or yet) registers again by itself."""


def describe(code: int) -> str:
    """`code` with its name."""
    return f"{NAMES.get(code, 'unknown code')} ({code})"


def write_error(code: int, what: str) -> EyasError:
    """The error of a put that returned `code`; a failed transfer means the chosen node died, another may serve."""
    if code in _FULL:
        return StoreFull(f"{what}: {describe(code)}", retry_after_seconds=1.0)
    if code in _WAIT or code in (TRANSFER, -712):
        return Transient(f"{what}: {describe(code)}", retry_after_seconds=1.0)
    return Bug(f"{what}: Mooncake answered {describe(code)}")


def read_error(code: int, what: str) -> EyasError:
    """The error of a get or a size query that returned `code`."""
    if code in _LOST:
        return NotReadable(f"{what}: {describe(code)}")
    if code in _WAIT:
        return Transient(f"{what}: {describe(code)}", retry_after_seconds=1.0)
    return Bug(f"{what}: Mooncake answered {describe(code)}")


def removed(code: int, what: str) -> bool:
    """Whether a plain remove that returned `code` is done. False: leased, half-written or busy, ask again later.

    Raises `Transient` while the control plane is away, `Bug` for an answer that a remove cannot have.
    """
    if code >= OK or code == NOT_FOUND:
        return True
    if code in (LEASED, NOT_READY, BUSY, -708, -709):
        return False
    if code in _WAIT:
        raise Transient(f"{what}: {describe(code)}", retry_after_seconds=1.0)
    raise Bug(f"{what}: Mooncake answered {describe(code)}")
