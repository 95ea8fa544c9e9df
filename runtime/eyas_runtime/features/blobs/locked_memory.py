"""Whether this process may lock the memory that RDMA registers, asked before Mooncake fails at it with a mere code.

The kernel counts what a process has registered, once for each device, against RLIMIT_MEMLOCK, unless the process holds
CAP_IPC_LOCK in the first user namespace. Kubernetes gives an added capability to root alone, and the limit of a
container is that of its runtime: nothing in a job's own spec can raise it.

Sources: Linux `ib_umem_get`; kubernetes/kubernetes#56374.
"""

import resource
from pathlib import Path
from typing import Final

from eyas_contract.errors import UserError

ADVICE: Final = (
    "set LimitMEMLOCK=infinity on the unit of the node's container runtime (containerd), restart it and make the pod "
    "again; adding IPC_LOCK helps root only"
)
_SELF: Final = Path("/proc/self")
_CAP_IPC_LOCK: Final = 14
_ALL_IDS: Final = ["0", "0", "4294967295"]
"""The id map of the first user namespace."""


def lockable_bytes(process: Path = _SELF) -> int | None:
    """What this process may lock at most; None: there is no bound. `process` is its folder in `/proc`."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if hard == resource.RLIM_INFINITY or _may_lock_anything(process) else hard


def require_lockable(count: int, *, devices: str) -> None:
    """Let this process lock `count` bytes for each of `devices` (names with commas between; empty: at least one).

    Raises `UserError` naming the limit where it may not.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    # Up to the hard limit a process may help itself.
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    needed = count * max(1, len([name for name in devices.split(",") if name.strip()]))
    bound = lockable_bytes()
    if bound is not None and bound < needed:
        raise UserError(f"RLIMIT_MEMLOCK is {bound} bytes, and RDMA has to lock at least {needed} bytes here: {ADVICE}")


def _may_lock_anything(process: Path) -> bool:
    try:
        status = (process / "status").read_text(encoding="ascii", errors="replace")
        ids = (process / "uid_map").read_text(encoding="ascii").split()
    except OSError:
        return False
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return ids == _ALL_IDS and bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)
