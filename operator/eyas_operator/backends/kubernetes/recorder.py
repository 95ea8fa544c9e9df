"""Kubernetes Events about jobs: aggregated, limited, and never a reason for a pass to fail.

The same words about the same job within `WINDOW_SECONDS` are one Event with a series. Its name follows from its
content, so an operator that was restarted goes on with the same Event (it may not read the old count and begins at
two). A job that says too much is cut off until its allowance has grown again.
"""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from eyas_contract.errors import EyasError
from eyas_operator import names
from eyas_operator.backends.kubernetes.client import KubeClient
from eyas_operator.backends.kubernetes.errors import Exists, Missing
from eyas_operator.backends.kubernetes.resources import EVENTS
from eyas_operator.cluster import Event
from eyas_operator.names import JobIdentity
from eyas_operator.world import Manifest

WINDOW_SECONDS: Final = 600.0
TELL_SECONDS: Final = 2.0
"""Actions wait for the events that tell of them, but not for long."""
BURST: Final = 30
REFILL_SECONDS: Final = 10.0
"""After this time one more event may be told of a job."""
NOTE_BYTES_MAX: Final = 1024
CONTROLLER: Final = f"{names.GROUP}/operator"
ENTRIES_MAX: Final = 10_000
_NAME_CHARACTERS_MAX: Final = 200


@dataclass(slots=True)
class _Series:
    count: int
    last: float


@dataclass(slots=True)
class _Allowance:
    left: float
    last: float


class Recorder:
    """Posts events of one operator process, called `instance` (its pod's name)."""

    def __init__(self, client: KubeClient, instance: str, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds."""
        self._client = client
        self._instance = instance[:128]
        self._clock = clock
        self._series: dict[str, _Series] = {}
        self._allowances: dict[str, _Allowance] = {}

    async def post(self, job: JobIdentity, events: tuple[Event, ...]) -> int:
        """Tell people, within `TELL_SECONDS` for all; returns how many were not told: the limit, an error, no time."""
        told = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(TELL_SECONDS):
                for event in events:
                    now = self._clock()
                    if self._allowed(job, now):
                        with suppress(EyasError):
                            await self._tell(job, event, now)
                            told += 1
        return len(events) - told

    async def _tell(self, job: JobIdentity, event: Event, now: float) -> None:
        name = event_name(job, event, now)
        known = self._series.get(name)
        if known is None:
            self._remember(name, _Series(1, now))
            try:
                await self._client.create(EVENTS.collection(job.namespace), self._manifest(job, event, name, now))
                return
            except Exists:
                known = self._series[name]
        known.count, known.last = known.count + 1, now
        series = {"series": {"count": known.count, "lastObservedTime": micro_time(now)}}
        try:
            await self._client.merge(EVENTS.item(job.namespace, name), series)
        except Missing:
            # It lived as long as the cluster keeps events: begin again.
            del self._series[name]
            raise

    def _manifest(self, job: JobIdentity, event: Event, name: str, now: float) -> Manifest:
        return {
            "apiVersion": EVENTS.group_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": job.namespace, "labels": {names.LABEL_JOB_UID: job.uid}},
            "eventTime": micro_time(now),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": event.action,
            "reason": event.reason,
            "type": event.type,
            "note": event.message.encode()[:NOTE_BYTES_MAX].decode(errors="ignore"),
            "regarding": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "namespace": job.namespace,
                "name": job.name,
                "uid": job.uid,
            },
        }

    def _allowed(self, job: JobIdentity, now: float) -> bool:
        allowance = self._allowances.pop(job.uid, None) or _Allowance(BURST, now)
        allowance.left = min(BURST, allowance.left + (now - allowance.last) / REFILL_SECONDS)
        allowance.last = now
        self._allowances[job.uid] = allowance
        while len(self._allowances) > ENTRIES_MAX:
            del self._allowances[next(iter(self._allowances))]
        if allowance.left < 1:
            return False
        allowance.left -= 1
        return True

    def _remember(self, name: str, series: _Series) -> None:
        self._series[name] = series
        while len(self._series) > ENTRIES_MAX:
            del self._series[next(iter(self._series))]


def event_name(job: JobIdentity, event: Event, now: float) -> str:
    """The same for the same words about the same job in the same window of time."""
    words = "\0".join((job.uid, event.type, event.reason, event.action, event.message, str(int(now // WINDOW_SECONDS))))
    return f"{job.name[:_NAME_CHARACTERS_MAX].rstrip('-.')}.{hashlib.sha256(words.encode()).hexdigest()[:16]}"


def micro_time(seconds: float) -> str:
    """RFC 3339 with microseconds, as `MicroTime` wants it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
