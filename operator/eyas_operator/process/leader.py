"""Everything that works only while this process leads: lists, streams, queue and passes.

`run` ends when a stream does that never should end, or when streams are needed for a namespace that was closed to us,
and says why: the next life begins with what is open then. Passes begin with the first list, before the streams are
open: what happens between the two is listed once more by the streams themselves.
"""

import asyncio
import logging
from collections.abc import Callable

from eyas_operator.backends.kubernetes.cluster import KubernetesCluster
from eyas_operator.handlers.feed import Feed
from eyas_operator.handlers.watches import Watches
from eyas_operator.process.logs import JOB
from eyas_operator.process.metrics import ProcessMetrics
from eyas_operator.process.resync import Resync
from eyas_operator.process.settings import EVERYWHERE, ProcessSettings
from eyas_operator.queue.workers import JobKey, Verdict, Workers
from eyas_operator.reconciler import Reconciler
from eyas_operator.telemetry import Telemetry

log = logging.getLogger(__name__)


class Leader:
    """The working part of one process."""

    def __init__(
        self,
        cluster: KubernetesCluster,
        reconciler: Reconciler,
        telemetry: Telemetry,
        metrics: ProcessMetrics,
        process: ProcessSettings,
        *,
        clock: Callable[[], float],
    ) -> None:
        """`reconciler` writes through a guarded cluster; `clock` is monotonic."""
        self._telemetry = telemetry
        self._metrics = metrics
        self._reconciler = reconciler
        self.workers = Workers(self._pass, count=process.workers, clock=clock)
        feed = Feed(cluster.jobs, cluster.children, self.workers.wake, metrics.heard)
        namespaces = process.namespaces
        self.resync = Resync(
            cluster, namespaces, self.workers.wake, feed.hearing, seconds=process.relist_seconds, clock=clock
        )
        self._watches = Watches(feed, telemetry.requested)
        metrics.follow("queue_depth", "Jobs that are due and wait for a worker.", lambda: float(self.workers.depth))
        metrics.follow("watch_missed_changes", "Changes that only lists showed.", lambda: float(self.resync.missed))

    async def run(self, started: Callable[[], None]) -> str:
        """Work until something fails for good; says what. `started` is called when kopf has started.

        Raises `Fenced` when another operator leads.
        """
        await self.resync.first()
        passes = asyncio.create_task(self.workers.run(), name="passes")
        relists = asyncio.create_task(self.resync.run(), name="relists")
        await self._watches.start(self.resync.served - {EVERYWHERE})
        started()
        streams = asyncio.create_task(self._watches.ended(), name="streams")
        tasks = (passes, relists, streams)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if passes.done():
                # They end by an error, or because they were told to.
                passes.result()
            return next((task.result() for task in (relists, streams) if task.done()), "the passes ended")
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def drain(self) -> None:
        """Begin no pass and finish those under way, in bounded time."""
        if not await self.workers.stop():
            log.warning("a pass under way is abandoned")

    async def close(self) -> None:
        """Close the streams."""
        await self._watches.stop()

    async def _pass(self, key: JobKey) -> Verdict:
        JOB.set("/".join(key))
        outcome = await self._reconciler.reconcile(key.namespace, key.name)
        if outcome.error:
            self._metrics.failed(outcome.error.partition(":")[0])
            return Verdict(wake_seconds=outcome.wake_seconds, error=outcome.error)
        if outcome.status is None:
            # Gone: nothing is looked at again, and its series end.
            self._telemetry.forget(key.namespace, key.name)
            return Verdict(wake_seconds=None)
        return Verdict(wake_seconds=outcome.wake_seconds)
