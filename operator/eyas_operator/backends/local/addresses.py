"""Loopback addresses: every local pod has one of its own, so ports are fixed and two runs never meet.

Linux answers on all of 127.0.0.0/8 without any set-up. The address is a pure function of the job's UID, the role and
the index: it stays when a pod is replaced, as the address of a Service does in a cluster. 16 million of them make a
meeting of two jobs unlikely; if it happens, or a port is taken by anybody else, `taken` names it.
"""

import hashlib
import socket
from dataclasses import dataclass
from pathlib import Path

from eyas_operator.backends.local import processes
from eyas_operator.names import Role

_LISTEN = "0A"
"""State of a listening socket in /proc/net/tcp."""


def address_of(job_uid: str, role: Role, index: int) -> str:
    """Address of the pod of `role` with `index`; never in 127.0.0.0/16, where other programs live."""
    raw = hashlib.blake2s(f"{job_uid}/{role.value}/{index}".encode(), digest_size=3).digest()
    return f"127.{1 + raw[0] % 254}.{raw[1]}.{1 + raw[2] % 254}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A port that somebody else has."""

    address: str
    port: int
    owner: str
    """`process 4711 (nc)`, or empty when it cannot be seen."""

    @property
    def sentence(self) -> str:
        """For people."""
        by = f" by {self.owner}" if self.owner else ""
        return f"{self.address}:{self.port} is taken{by}; end that program, or run the job in another folder"


def taken(address: str, port: int) -> Taken | None:
    """Whether anybody listens on this address and port (or on the port of all addresses)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an earlier run that linger in TIME_WAIT are nobody's.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return Taken(address=address, port=port, owner=_owner(address, port))
    return None


def _owner(address: str, port: int) -> str:
    inode = _inode(address, port)
    if inode is None:
        return ""
    for pid in processes.all_pids():
        for descriptor in processes.descriptors(pid):
            if descriptor == f"socket:[{inode}]":
                return f"process {pid} ({processes.name_of(pid)})"
    return ""


def _inode(address: str, port: int) -> str | None:
    """Inode of the socket that listens there, from the kernel's own table."""
    wanted = {f"{_hex(address)}:{port:04X}", f"00000000:{port:04X}"}
    try:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) > 9 and fields[1] in wanted and fields[3] == _LISTEN:
            return fields[9]
    return None


def _hex(address: str) -> str:
    return socket.inet_aton(address)[::-1].hex().upper()
