"""Readiness as a port: open while the role can make progress, closed otherwise, and nothing is ever said on it.

The kubelet's probe connects once a second. A probe that runs a command instead starts a process in the container each
time, which costs a node more than most of our pods do.
"""

import socket
import sys
from contextlib import suppress
from typing import Final

LOOK_SECONDS: Final = 0.25
"""Between two looks at the readiness file."""
BACKLOG: Final = 16


class ReadyPort:
    """The port of one pod; does nothing where the pod has none. Used from the supervisor's thread only."""

    def __init__(self, address: tuple[str, int] | None) -> None:
        self._address = address
        self._listener: socket.socket | None = None
        self._told = ""

    @property
    def look_seconds(self) -> float | None:
        """How long the loop may sleep; None where there is no port to look after."""
        return None if self._address is None else LOOK_SECONDS

    @property
    def descriptors(self) -> list[int]:
        """What becomes readable when somebody connects."""
        return [] if self._listener is None else [self._listener.fileno()]

    def follow(self, *, ready: bool) -> None:
        """Be open if and only if `ready`. A port that cannot be opened is said once and tried again at each look."""
        if ready and self._listener is None and self._address is not None:
            self._open(self._address)
        elif not ready and self._listener is not None:
            self._listener.close()
            self._listener = None

    def hang_up(self) -> None:
        """End the connections that came in: that they came in is the whole answer."""
        if self._listener is not None:
            with suppress(OSError):
                while True:
                    self._listener.accept()[0].close()

    def _open(self, address: tuple[str, int]) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            self._listener = socket.create_server(address, family=family, backlog=BACKLOG)
        except OSError as error:
            sentence = f"cannot listen on {address[0]}:{address[1]} to say that the pod is ready: {error.strerror}"
            if sentence != self._told:
                self._told = sentence
                with suppress(OSError):
                    sys.stderr.write(f"{sentence}\n")
            return
        self._listener.setblocking(False)
