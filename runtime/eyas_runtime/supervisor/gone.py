"""Whether a job is gone for good, seen from a pod that has nobody to ask any more: its service's name is unknown.

A service that restarts keeps its name, so clients wait. A job that was deleted takes the name with it, and who waits
then for the order to write a last checkpoint waits until the kubelet kills it: minutes of GPUs that nobody uses.
"""

import socket
import time
from typing import Final
from urllib.parse import urlsplit

GONE_SECONDS: Final = 15.0
"""A name that is unknown for so long comes back with nothing that this pod could still save."""
LOOK_SECONDS: Final = 1.0


def wait_until_unknown(url: str, *, patience: float = GONE_SECONDS, pause: float = LOOK_SECONDS) -> None:
    """Return when the host of `url` could not be resolved for `patience` seconds on end; look every `pause` seconds.

    For a thread of a pod that is about to stop: its grace period bounds the wait.
    """
    host = urlsplit(url).hostname or ""
    known = time.monotonic()
    while time.monotonic() - known < patience:
        time.sleep(pause)
        if _resolves(host):
            known = time.monotonic()


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror:
        # Whatever the resolver says of it: behind a search list an unknown name may look like a server that is busy.
        return False
    return True
