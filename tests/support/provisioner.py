"""Keeps the cluster's volume provisioner alive.

local-path-provisioner 0.0.30 takes a lock for reading twice in one call. When its half-minute look at its own settings
asks for the same lock in between, all its workers wait for ever, and no claim is bound any more. Nothing but a new pod
helps, and this is not what the tier is about.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from support.kubectl import Kubectl, Refused

LOOK_SECONDS: Final = 5.0
STUCK_SECONDS: Final = 30.0
_PROVISIONER: Final = ("--namespace", "local-path-storage", "--selector", "app=local-path-provisioner")
_ASKED: Final = "volume.kubernetes.io/storage-provisioner"


@contextmanager
def provisioner_watched(kubectl: Kubectl) -> Iterator[None]:
    """While the block runs, a provisioner that leaves a claim unbound for half a minute gets a new pod."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            try:
                _look(kubectl)
            except Refused:
                # The API server is away, as tests make it at times.
                continue

    thread = threading.Thread(target=watch, name="provisioner", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _look(kubectl: Kubectl) -> None:
    waiting = [_age(claim) for claim in kubectl.items("persistentvolumeclaims") if _unserved(claim)]
    alive = [_age(pod) for pod in kubectl.items("pods", *_PROVISIONER)]
    if min([max(waiting, default=0.0), *alive]) > STUCK_SECONDS:
        kubectl.run("delete", "pods", *_PROVISIONER, "--wait=false")


def _unserved(claim: dict[str, Any]) -> bool:
    """The provisioner was asked for its volume and has not made one; nobody is to delete it either."""
    meta = claim["metadata"]
    return (
        _ASKED in meta.get("annotations", {})
        and not claim["spec"].get("volumeName")
        and not meta.get("deletionTimestamp")
    )


def _age(body: dict[str, Any]) -> float:
    """Seconds since the object was made."""
    made = datetime.fromisoformat(body["metadata"]["creationTimestamp"])
    return (datetime.now(UTC) - made).total_seconds()
