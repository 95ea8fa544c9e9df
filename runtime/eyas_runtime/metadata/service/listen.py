"""Takes the address of the service. A predecessor that was just killed is no obstacle; a stranger is named as one."""

import asyncio
import errno
import ipaddress
import socket
import time
from typing import Final

from eyas_contract.errors import Transient, UserError

BIND_SECONDS: Final = 15.0
"""A predecessor that was just killed is gone at once; whoever still listens after so long is somebody else."""
BIND_PAUSE_SECONDS: Final = 0.25
BACKLOG: Final = 1024


async def bind(host: str, port: int) -> socket.socket:
    """A listening-to-be socket on `host:port`.

    Raises `Transient` when somebody else keeps the address for `BIND_SECONDS`, `UserError` when it is not ours to bind.
    """
    ends = time.monotonic() + BIND_SECONDS
    while True:
        try:
            return _bind_once(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UserError(f"cannot listen on {host}:{port}: {error.strerror}") from error
            if time.monotonic() >= ends:
                raise Transient(
                    f"cannot listen on {host}:{port}: another program has been listening there for "
                    f"{BIND_SECONDS:g} s; stop it, or run this job on another address"
                ) from error
        await asyncio.sleep(BIND_PAUSE_SECONDS)


def tunnel_end(host: str) -> str | None:
    """Where a tunnel into this pod ends (`kubectl port-forward` and its like): its loopback address.

    None where `host` is loopback itself, as locally, or every address. What comes that way shows a token like all else.
    """
    address = ipaddress.ip_address(host)
    if address.is_loopback or address.is_unspecified:
        return None
    return "::1" if address.version == 6 else "127.0.0.1"


def _bind_once(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Without this the closed connections of a predecessor would keep the address for a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
