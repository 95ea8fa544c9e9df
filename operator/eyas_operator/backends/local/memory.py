"""Memory limits without control groups: a pod over its limit is killed, as the kernel would kill its container.

`RLIMIT_AS` bounds addresses, not memory, and makes torch fail at once; control groups are not ours to change. So
the resident memory of every process of the pod is added up, twice a second. Shared pages are counted once per process
by that, so a pod that seems over its limit is counted again with shared pages divided among their users. A jump of
many gigabytes within half a second can pass the limit before it is seen.
"""

from typing import Final

from eyas_operator.api.base import parse_quantity
from eyas_operator.backends.local import processes

POLL_SECONDS: Final = 0.5


def limit_bytes(quantity: object) -> int | None:
    """Bytes of a limit as a manifest writes it; None when there is none or it is not one."""
    try:
        return parse_quantity(quantity) if quantity is not None else None
    except ValueError:
        return None


def used_bytes(session: int, *, at_least: int) -> int:
    """Memory of all processes of a session; the exact share of each only when the sum exceeds `at_least`."""
    members = processes.members(session)
    roughly = sum(process.resident_bytes for process in members)
    if roughly <= at_least:
        return roughly
    shares = ((process, processes.proportional_bytes(process.pid)) for process in members)
    return sum(process.resident_bytes if share is None else share for process, share in shares)
