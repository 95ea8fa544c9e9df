"""An operator's passes on a private API server: the adapter, a job, and somebody who plays the kubelet.

There are no controllers: nobody collects, binds or starts anything, so the test does (`Kubelet`). The metadata service
is a function of the test.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from eyas_contract.errors import EyasError
from eyas_contract.wire import StatusReply
from eyas_operator.backends.kubernetes.client import KubeClient
from eyas_operator.backends.kubernetes.cluster import KubernetesCluster
from eyas_operator.backends.kubernetes.connect import connect
from eyas_operator.backends.kubernetes.keys import OperatorKeys
from eyas_operator.backends.kubernetes.recorder import Recorder
from eyas_operator.names import JobIdentity
from eyas_operator.reconciler import Outcome, Reconciler
from eyas_operator.settings import Settings
from eyas_operator.telemetry import Telemetry
from eyas_operator.world import Pod
from support.kube_apiserver import KubeApiServer, Reply
from support.operator_world import ENVIRONMENT, NOW, a_body

JOBS: Final = "/apis/eyas.dev/v1alpha1/namespaces/{}/disaggtrainingjobs"
SETTINGS: Final = Settings(progress_seconds=10.0)


class ToldReports:
    """In place of metadata services: the report that the test puts here."""

    def __init__(self) -> None:
        self.report: StatusReply | None = None
        self.refused = False
        """The service does not know the token that derives from the present key."""

    async def read(self, job: JobIdentity, pod: Pod) -> StatusReply | None:
        return self.report

    def stale(self, job: JobIdentity) -> bool:
        return self.refused

    async def close(self) -> None:
        return


class Clock:
    """Time as the test moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Operator:
    """One operator process: an adapter with its caches, a reconciler, counted requests."""

    def __init__(self, cluster: KubernetesCluster, reconciler: Reconciler, requests: Counter[str]) -> None:
        self.cluster = cluster
        self.reconciler = reconciler
        self.requests = requests
        """By verb."""

    def writes(self) -> int:
        """Requests so far that were no reads."""
        return sum(count for verb, count in self.requests.items() if verb != "GET")

    async def rest(self, job: JobIdentity, kubelet: "Kubelet", clock: Clock, *, passes: int = 40) -> Outcome:
        """Pass, with the kubelet at work between, until a pass writes nothing twice in a row."""
        quiet = 0
        for _ in range(passes):
            before = self.writes()
            outcome = await self.reconciler.reconcile(job.namespace, job.name)
            moved = kubelet.work()
            clock.now += 2.0
            if moved and self.cluster.children.children(job) is not None:
                # There is no watch here: a list brings what it would have brought.
                await self.cluster.relist(job.namespace)
            quiet = quiet + 1 if self.writes() == before and not moved and not outcome.error else 0
            if quiet == 2:
                return outcome
        raise AssertionError(f"the operator does not come to rest: {outcome}")


@asynccontextmanager
async def operator(
    server: KubeApiServer,
    folder: Path,
    clock: Clock,
    *,
    reports: Any = None,  # noqa: ANN401 - Reports or a stand-in
    url: str = "",
    user: str = "admin",
    settings: Settings = SETTINGS,
    before: Callable[[str, str], None] = lambda verb, path: None,
    after: Callable[[str, str, bytes], None] = lambda verb, path, raw: None,
) -> AsyncIterator[Operator]:
    """A new operator process; `url` may name a proxy.

    `before(verb, path)` is called before each request, `after(verb, path, answer)` after each, with an empty answer
    for a failure; what they raise comes out of the pass.
    """
    (folder / "current").write_text("k" * 64) if not (folder / "current").exists() else None
    counted: Counter[str] = Counter()

    class Watched(KubeClient):
        async def request(self, verb: str, path: str, **options: Any) -> bytes:  # noqa: ANN401
            before(verb, path)
            try:
                raw = await super().request(verb, path, **options)
            except EyasError:
                after(verb, path, b"")
                raise
            after(verb, path, raw)
            return raw

    client = Watched(await connect(server.kubeconfig(user, url=url)), lambda verb, code: counted.update([verb]))
    keys = OperatorKeys(folder)
    cluster = KubernetesCluster(
        client, keys=keys, reports=reports or ToldReports(), recorder=Recorder(client, "operator-0", clock)
    )
    try:
        yield Operator(cluster, Reconciler(cluster, ENVIRONMENT, settings, clock, Telemetry()), counted)
    finally:
        await cluster.close()


def submit(server: KubeApiServer, namespace: str, name: str = "demo", **spec: object) -> JobIdentity:
    """Create a job; returns who it is."""
    body = a_body(**spec)
    body["metadata"] = {"name": name, "namespace": namespace}
    made = server.must("POST", JOBS.format(namespace), body)
    return JobIdentity(namespace=namespace, name=name, uid=made["metadata"]["uid"])


def status_of(server: KubeApiServer, job: JobIdentity) -> dict[str, Any]:
    """The job's status as anybody reads it."""
    found: dict[str, Any] = server.must("GET", f"{JOBS.format(job.namespace)}/{job.name}").get("status", {})
    return found


class Kubelet:
    """Plays scheduler, kubelet, volume and garbage controllers of one namespace, as far as an operator notices."""

    def __init__(self, server: KubeApiServer, namespace: str) -> None:
        self._server = server
        self.namespace = namespace

    def path(self, plural: str, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def pods(self) -> list[dict[str, Any]]:
        """All pods."""
        found: list[dict[str, Any]] = self._server.must("GET", self.path("pods"))["items"]
        return found

    def named(self, hostname: str) -> dict[str, Any]:
        """The pod of that short name."""
        return next(pod for pod in self.pods() if pod["spec"]["hostname"] == hostname)

    def work(self) -> bool:
        """Bind and start what waits, remove what is being deleted; whether anything changed."""
        moved = False
        for pod in self.pods():
            name, meta = pod["metadata"]["name"], pod["metadata"]
            if "deletionTimestamp" in meta:
                self._taken(self._server.ask("DELETE", self.path("pods", name), {"gracePeriodSeconds": 0}))
                moved = True
            elif not pod["spec"].get("nodeName"):
                self._start(name)
                moved = True
        for claim in self._server.must("GET", self.path("persistentvolumeclaims"))["items"]:
            moved = self._claim(claim) or moved
        return moved

    def end(self, hostname: str, code: int, *, reason: str = "Error", message: str = "") -> None:
        """The pod's container ended."""
        name = self.named(hostname)["metadata"]["name"]
        ended = {"exitCode": code, "reason": reason, "message": message}
        status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [_container({"terminated": ended}, ready=False)],
        }
        self._status("pods", name, status)

    def kill(self, hostname: str) -> None:
        """The pod is gone at once, without a trace."""
        name = self.named(hostname)["metadata"]["name"]
        self._server.must("DELETE", self.path("pods", name), {"gracePeriodSeconds": 0})

    def _start(self, name: str) -> None:
        binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": "node-1"}}
        if not self._taken(self._server.ask("POST", f"{self.path('pods', name)}/binding", binding)):
            return
        running = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [_container({"running": {}}, ready=True)],
        }
        self._status("pods", name, running)

    def _claim(self, claim: dict[str, Any]) -> bool:
        name = claim["metadata"]["name"]
        if "deletionTimestamp" in claim["metadata"]:
            change = {"metadata": {"finalizers": None}}
            self._server.ask(
                "PATCH", self.path("persistentvolumeclaims", name), change, content="application/merge-patch+json"
            )
            return True
        if claim["status"].get("phase") != "Bound":
            self._status("persistentvolumeclaims", name, {"phase": "Bound"})
            return True
        return False

    def _status(self, plural: str, name: str, status: dict[str, Any]) -> None:
        path = f"{self.path(plural, name)}/status"
        self._taken(self._server.ask("PATCH", path, {"status": status}, content="application/merge-patch+json"))

    @staticmethod
    def _taken(reply: Reply) -> bool:
        """Whether it was done; an operator that is a process of its own may have been faster (404, 409)."""
        assert reply.status < 300 or reply.status in (404, 409), f"{reply.status}: {reply.message}"
        return reply.status < 300


def _container(state: dict[str, Any], *, ready: bool) -> dict[str, Any]:
    return {"name": "main", "image": "x", "imageID": "", "restartCount": 0, "ready": ready, "state": state}
