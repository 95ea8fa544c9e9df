"""Shell: the watch streams, held by kopf, whose handlers do one thing: hand every event to the feed.

Only `on.event` is used. Everything else that kopf offers writes to the objects it watches (finalizers, annotations,
progress) or decides from differences, which a missed event breaks. kopf runs without peering, without its probe server
and without posting events; its root tasks are started and ended here and not by `kopf.operator`, which would cancel
every task of the process that is younger than itself. A stream that fails for good ends `ended`: the process then ends
too, and its successor begins with fresh lists.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final

import kopf

from eyas_operator import names
from eyas_operator.handlers.feed import Feed
from eyas_operator.handlers.login import Report, session

CHILD_KINDS: Final = (
    ("", "v1", "pods"),
    ("", "v1", "persistentvolumeclaims"),
    ("", "v1", "services"),
    ("", "v1", "configmaps"),
    ("networking.k8s.io", "v1", "networkpolicies"),
    ("policy", "v1", "poddisruptionbudgets"),
)
"""Group, version and plural of everything that is watched besides the jobs; always by our label, at the server."""
STOP_SECONDS: Final = 5.0


def kopf_settings() -> kopf.OperatorSettings:
    """kopf as a shell: short time-outs, nothing posted, nothing stored under its own name."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 5.0
    settings.networking.error_backoffs = (0.5, 1, 2, 4)
    settings.execution.default_backoff = 5.0
    # One short-lived task per object that had an event; the handlers never wait, so idle ones may go at once.
    settings.queueing.worker_limit = 2000
    settings.queueing.idle_timeout = 0.5
    settings.queueing.error_delays = (1, 1, 2, 3, 5)
    # The server ends a stream first; one that brings not even a bookmark for 70 s is opened again.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = 500
    # Never written, as no handler needs a finalizer or a memory; were it otherwise, it would be under our own name.
    settings.persistence.finalizer = f"{names.GROUP}/watch"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.GROUP)
    for group, version, plural in CHILD_KINDS:
        where = (group, version, plural) if group else (version, plural)
        settings.watching.label_selectors[where] = names.LABEL_JOB_UID
    return settings


class Watches:
    """All streams of one process."""

    def __init__(self, feed: Feed, report: Report) -> None:
        self._feed = feed
        self._report = report
        self._tasks: Collection[asyncio.Task[Any]] = ()

    async def start(self, namespaces: Collection[str]) -> None:
        """Open the streams; no `namespaces`: of the whole cluster. One that may not be listed ends them all.

        Beware: kopf takes SIGINT and SIGTERM; whoever starts it sets their handlers again.
        """
        settings = kopf_settings()
        self._tasks = await kopf.spawn_tasks(
            registry=self._registry(settings),
            settings=settings,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=tuple(namespaces),
        )

    async def ended(self) -> str:
        """Wait until a stream or kopf itself is over, which none ever should be; says why."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        reasons = (task.exception() for task in done if not task.cancelled())
        error = next((reason for reason in reasons if reason is not None), None)
        return f"{type(error).__name__}: {error}" if error is not None else "kopf ended without an error"

    async def stop(self) -> None:
        """Close the streams, in bounded time."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            with suppress(asyncio.CancelledError):
                await asyncio.wait(self._tasks, timeout=STOP_SECONDS)

    def _registry(self, settings: kopf.OperatorSettings) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        async def login(**_: object) -> kopf.AiohttpSession:
            return session(settings, self._report)

        async def job_event(event: kopf.RawEvent, **_: object) -> None:
            self._feed.job(event["type"], dict(event["object"]))

        async def child_event(event: kopf.RawEvent, **_: object) -> None:
            self._feed.child(event["type"], dict(event["object"]))

        kopf.on.login(registry=registry)(login)
        kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)(job_event)
        for group, version, plural in CHILD_KINDS:
            where = (group, version, plural) if group else (version, plural)
            kopf.on.event(*where, id=f"child_{plural}", registry=registry)(child_event)
        return registry
