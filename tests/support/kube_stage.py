"""A scene of a test: one job in a namespace of its own on a private API server, one operator, and a played kubelet."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from eyas_operator.names import JobIdentity
from support.kube_apiserver import KubeApiServer
from support.kube_operator import Clock, Kubelet, Operator, ToldReports, operator, status_of, submit

Scene = Callable[["Stage"], Coroutine[Any, Any, None]]


class Stage:
    """One job in a namespace of its own, and one operator."""

    def __init__(
        self, server: KubeApiServer, job: JobIdentity, process: Operator, clock: Clock, reports: ToldReports
    ) -> None:
        self.server = server
        self.job = job
        self.process = process
        self.clock = clock
        self.reports = reports
        self.kubelet = Kubelet(server, job.namespace)

    async def settle(self) -> None:
        await self.process.rest(self.job, self.kubelet, self.clock)

    async def one_pass(self) -> Any:  # noqa: ANN401 - an Outcome
        self.clock.now += 2
        return await self.process.reconciler.reconcile(self.job.namespace, self.job.name)

    def hostnames(self) -> list[str]:
        return sorted(pod["spec"]["hostname"] for pod in self.kubelet.pods())

    def condition(self, kind: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = status_of(self.server, self.job)["conditions"]
        return next(entry for entry in found if entry["type"] == kind)


def play(server: KubeApiServer, folder: Path, scene: Scene, **spec: object) -> None:
    """Run a scene with a fresh job."""
    namespace = server.namespace("backend")
    job, clock = submit(server, namespace, **spec), Clock()

    async def inside() -> None:
        reports = ToldReports()
        async with operator(server, folder, clock, reports=reports) as process:
            await scene(Stage(server, job, process, clock, reports))

    asyncio.run(inside())


STARTED: Final = [
    "consumer-0-a1",
    "consumer-1-a1",
    "metadata-e1-o1",
    "producer-0-o1",
    "producer-1-o1",
    "store-master-o1",
    "store-node-0-o1",
]
"""Pods of a job that has just started."""
