"""Lives of an operator on a private API server that end, begin, overlap and see too little.

`Theatre` is one job in a namespace of its own. It counts what every operator made, so that a pod which is made twice
under one name is found, and folds the end state into something that two runs can be compared by.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from eyas_operator.names import JobIdentity
from support.kube_apiserver import KubeApiServer
from support.kube_operator import JOBS, Clock, Kubelet, Operator, ToldReports, operator, status_of, submit

Disturbance = Callable[["Theatre"], None]


class OperatorDied(BaseException):
    """The process ended between two instructions."""


class Theatre:
    """One job, its world, and the books on its operators."""

    def __init__(self, server: KubeApiServer, folder: Path, **spec: object) -> None:
        namespace = server.namespace("sieve")
        self.server = server
        self.folder = folder
        self.job: JobIdentity = submit(server, namespace, **spec)
        self.clock = Clock()
        self.kubelet = Kubelet(server, namespace)
        self.reports = ToldReports()
        self.pods_made: Counter[str] = Counter()
        self.attempts: list[int] = []
        self.writes = 0
        self.die_at = -1
        """Number of the write (from 0) at which the operator dies."""
        self.die_after = False
        """It dies after that write was done, and before it learns so."""

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Operator]:
        """A new process: empty caches, then the first list, as it starts up."""
        async with operator(
            self.server, self.folder, self.clock, reports=self.reports, before=self._before, after=self._after
        ) as process:
            await process.cluster.relist(self.job.namespace)
            yield process

    async def rest(self) -> int:
        """Operators, one after another, until one comes to rest; how many died."""
        deaths = 0
        while True:
            try:
                async with self.operator() as process:
                    await process.rest(self.job, self.kubelet, self.clock)
                    return deaths
            except OperatorDied:
                deaths += 1

    def _before(self, verb: str, path: str) -> None:
        if verb == "GET":
            return
        if self.writes == self.die_at and not self.die_after:
            self.die_at = -1
            raise OperatorDied
        self.writes += 1

    def _after(self, verb: str, path: str, raw: bytes) -> None:
        if verb == "GET":
            return
        if raw and verb == "POST" and path.endswith("/pods"):
            self.pods_made[json.loads(raw)["metadata"]["name"]] += 1
        if raw and verb == "PUT":
            self.attempts.append(json.loads(raw)["status"]["attempt"])
        if self.writes - 1 == self.die_at and self.die_after:
            self.die_at = -1
            raise OperatorDied

    def state(self) -> dict[str, Any]:
        """What must be equal at the end of two runs; numbers that fence may differ."""
        status = status_of(self.server, self.job)
        path = f"/api/v1/namespaces/{self.job.namespace}"
        claims = self.server.must("GET", f"{path}/persistentvolumeclaims")["items"]
        services = self.server.must("GET", f"{path}/services")["items"]
        stem = self.job.stem
        return {
            "pods": sorted(pod["spec"]["hostname"].rpartition("-")[0] for pod in self.kubelet.pods()),
            "stage": status["stage"],
            "conditions": {it["type"]: it["status"] for it in status["conditions"]},
            "claims": sorted(claim["metadata"]["name"].removeprefix(stem) for claim in claims),
            "services": sorted(service["metadata"]["name"].removeprefix(stem) for service in services),
        }

    def check_books(self) -> None:
        """No pod was made twice under one name, no attempt was taken back, and one gang runs: the newest."""
        assert not [name for name, count in self.pods_made.items() if count > 1]
        assert self.attempts == sorted(self.attempts)
        running = {
            pod["metadata"]["labels"]["eyas.dev/attempt"]
            for pod in self.kubelet.pods()
            if pod["metadata"]["labels"]["eyas.dev/role"] == "consumer"
        }
        assert running <= {str(status_of(self.server, self.job)["attempt"])}

    def edit(self, **spec: object) -> None:
        """A user changes the job."""
        path = f"{JOBS.format(self.job.namespace)}/{self.job.name}"
        self.server.must("PATCH", path, {"spec": spec}, content="application/merge-patch+json")


class Streams:
    """Watch streams made of differences between two looks; the test decides which event arrives."""

    def __init__(self, theatre: Theatre) -> None:
        self._theatre = theatre
        self._known: dict[str, dict[str, Any]] = {}
        self.events()

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """What happened since the last call, with the whole objects."""
        job = self._theatre.job
        path = f"/api/v1/namespaces/{job.namespace}"
        kinds = {
            "Pod": f"{path}/pods",
            "PersistentVolumeClaim": f"{path}/persistentvolumeclaims",
            "DisaggTrainingJob": JOBS.format(job.namespace),
        }
        now = {
            raw["metadata"]["uid"]: raw | {"kind": kind}
            for kind, where in kinds.items()
            for raw in self._theatre.server.must("GET", where)["items"]
        }
        before, self._known = self._known, now
        found = [("DELETED", raw) for uid, raw in before.items() if uid not in now]
        for uid, raw in now.items():
            if uid not in before:
                found.append(("ADDED", raw))
            elif before[uid]["metadata"]["resourceVersion"] != raw["metadata"]["resourceVersion"]:
                found.append(("MODIFIED", raw))
        return sorted(found, key=lambda event: int(event[1]["metadata"]["resourceVersion"]))
