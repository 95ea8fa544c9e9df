"""A job on a shared pool on a real API server: its deletion waits for the sweep, for the operator, and no longer."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from eyas_operator import names
from eyas_operator.names import JobIdentity
from eyas_operator.rights import JOB_RIGHTS
from support.kube_apiserver import KubeApiServer
from support.kube_operator import JOBS, Clock, Kubelet, Operator, operator, status_of, submit

pytestmark = pytest.mark.apiserver
EXTERNAL = {
    "backend": "Mooncake",
    "mooncake": {"external": {"masterAddress": "pool.store:50051", "masterMetricsAddress": "pool.store:9003"}},
}
RULES = [{"apiGroups": [it.group], "resources": [it.resource], "verbs": list(it.verbs)} for it in JOB_RIGHTS]
PASSES = 40


class Scene:
    """One job on a shared pool, in a namespace in which `operator` has the chart's rights."""

    def __init__(self, server: KubeApiServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.clock = Clock()
        namespace = server.namespace("cleanup")
        server.grant(namespace, RULES)
        self.kubelet = Kubelet(server, namespace)
        self.job: JobIdentity = submit(server, namespace, store=EXTERNAL)

    @property
    def path(self) -> str:
        return f"{JOBS.format(self.job.namespace)}/{self.job.name}"

    def body(self) -> dict[str, Any] | None:
        """The job as anybody reads it; None once it is gone."""
        reply = self.server.ask("GET", self.path)
        return reply.body if reply.status == 200 else None

    def hostnames(self) -> list[str]:
        return sorted(pod["spec"]["hostname"] for pod in self.kubelet.pods())

    def running(self) -> Any:  # noqa: ANN401 - a context manager
        """A new operator process."""
        return operator(self.server, self.folder, self.clock, user="operator")

    async def start(self, process: Operator) -> None:
        await process.rest(self.job, self.kubelet, self.clock)

    async def passes(self, process: Operator, sweeper_exits: int | None) -> None:
        """Pass until the job is gone, at most `PASSES` times; sweepers that run end with that code, or go on."""
        for _ in range(PASSES):
            await process.reconciler.reconcile(self.job.namespace, self.job.name)
            if self.body() is None:
                return
            self.kubelet.work()
            for pod in self.kubelet.pods():
                ended = pod["status"].get("phase") in ("Succeeded", "Failed")
                if sweeper_exits is not None and pod["spec"]["hostname"].startswith("sweeper") and not ended:
                    self.kubelet.end(pod["spec"]["hostname"], sweeper_exits)
            self.clock.now += 6.0


@pytest.fixture
def scene(jobs: KubeApiServer, tmp_path: Path) -> Scene:
    return Scene(jobs, tmp_path)


def test_deletion_in_the_middle_waits_for_the_sweep(scene: Scene) -> None:
    async def script() -> None:
        async with scene.running() as process:
            await scene.start(process)
            body = scene.body()
            assert body is not None
            assert body["metadata"]["finalizers"] == [names.FINALIZER]
            scene.server.must("DELETE", scene.path)
            await scene.passes(process, sweeper_exits=None)
            assert scene.hostnames() == ["sweeper-o1"]
            assert status_of(scene.server, scene.job)["state"] == "Deleting"
            await scene.passes(process, sweeper_exits=0)
            assert scene.body() is None

    asyncio.run(script())


def test_deletion_while_the_operator_is_away_waits_for_it(scene: Scene) -> None:
    async def script() -> None:
        async with scene.running() as process:
            await scene.start(process)
        scene.server.must("DELETE", scene.path)
        body = scene.body()
        assert body is not None, "nobody has swept"
        assert "deletionTimestamp" in body["metadata"]
        # However long it was away, its patience begins when it is back.
        scene.clock.now += 86400.0
        async with scene.running() as process:
            await scene.passes(process, sweeper_exits=0)
        assert scene.body() is None

    asyncio.run(script())


def test_an_operator_that_is_replaced_in_the_sweep_goes_on_with_it(scene: Scene) -> None:
    async def script() -> None:
        async with scene.running() as process:
            await scene.start(process)
            scene.server.must("DELETE", scene.path)
            await scene.passes(process, sweeper_exits=None)
        async with scene.running() as process:
            await scene.passes(process, sweeper_exits=None)
            assert scene.hostnames() == ["sweeper-o1"], "no second sweeper beside the first"
            await scene.passes(process, sweeper_exits=0)
        assert scene.body() is None

    asyncio.run(script())


def test_a_pool_that_is_away_holds_the_job_no_longer_than_patience(scene: Scene) -> None:
    async def script() -> None:
        async with scene.running() as process:
            await scene.start(process)
            scene.server.must("DELETE", scene.path)
            await scene.passes(process, sweeper_exits=75)
            assert scene.body() is not None
            scene.clock.now += 600.0
            await scene.passes(process, sweeper_exits=75)
            assert scene.body() is None
        told = scene.server.must("GET", f"/apis/events.k8s.io/v1/namespaces/{scene.job.namespace}/events")["items"]
        assert "PoolNotSwept" in {entry["reason"] for entry in told}

    asyncio.run(script())


def test_without_the_operator_a_person_can_let_it_go(scene: Scene) -> None:
    async def script() -> None:
        async with scene.running() as process:
            await scene.start(process)
        scene.server.must("DELETE", scene.path)
        change = {"metadata": {"finalizers": None}}
        scene.server.must("PATCH", scene.path, change, content="application/merge-patch+json")
        assert scene.body() is None

    asyncio.run(script())
