"""Tells the metadata service of every child that was started again in its pod, so that each is an incident.

For all roles but the ranks', whose exits `gang` reports. The service may be away, above all when its own supervisor is
the one that tells: a thread keeps what was not told yet and repeats it. What is lost is what a pod knew when it died
itself, and then its own end is the incident.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, cast

from eyas_contract import wire
from eyas_contract.client import MetadataClient
from eyas_contract.errors import EyasError
from eyas_runtime.supervisor.settings import ReportSettings

LOOK_SECONDS: Final = 0.1
"""How often the supervisor looks whether a child that was started again is ready, until it is."""
_Role = Literal["metadata", "store-master", "store-node", "producer"]
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Restart:
    ended: float
    reason: str
    ready: float = 0.0


class RestartLink:
    """Restarts of one pod's only child. `ended` and `ready` are called from the supervisor's loop."""

    def __init__(self, settings: ReportSettings | None, clock: Callable[[], float] = time.time) -> None:
        """None: there is nobody to tell, and nothing is kept."""
        self._settings = settings
        self._clock = clock
        self._changed = threading.Condition()
        self._pending: dict[float, _Restart] = {}
        """What the service does not know, by the time of the end, in order."""
        self._open: dict[float, _Restart] = {}
        """Without a successor that was ready."""
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> bool:
        """A child that was started again is not ready yet."""
        return bool(self._open)

    def ended(self, reason: str) -> None:
        """The child ended and another one follows."""
        settings = self._settings
        if settings is None:
            return
        restart = _Restart(ended=self._clock(), reason=reason)
        with self._changed:
            self._open[restart.ended] = self._pending[restart.ended] = restart
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._tell, args=(settings,), name="restarts", daemon=True)
            self._thread.start()

    def ready(self) -> None:
        """The child is ready: every restart before it has its successor."""
        now = self._clock()
        with self._changed:
            for key, restart in self._open.items():
                self._pending[key] = replace(restart, ready=now)
            self._open.clear()
            self._changed.notify()

    def _tell(self, settings: ReportSettings) -> None:
        client = MetadataClient(settings.metadata_url, str(settings.token_file))
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._pending))
                restart = next(iter(self._pending.values()))
            try:
                client.call(wire.RESTART, _request(settings, restart))
            except EyasError as error:
                # Refused for good (a newer epoch, a wrong token): whoever replaces this pod tells of its end.
                _log.warning("the restart was not told to the metadata service: %s", error)
            with self._changed:
                if self._pending.get(restart.ended) == restart:
                    del self._pending[restart.ended]


def _request(settings: ReportSettings, restart: _Restart) -> wire.RestartRequest:
    return wire.RestartRequest(
        role=cast("_Role", settings.role),
        index=settings.index,
        serial=settings.serial,
        time=restart.ended,
        reason=restart.reason,
        ready=restart.ready,
    )
