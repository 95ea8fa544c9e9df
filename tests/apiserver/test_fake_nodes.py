"""Many pods whose life others play: kwok's kubelets and the real scheduler, on nodes that are none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from eyas_cli.bench.operator.player import job_body
from eyas_operator import names
from eyas_operator.rights import JOB_RIGHTS, OWN_RIGHTS
from support.fake_nodes import SCHEDULER, fake_nodes
from support.kube_apiserver import MERGE, KubeApiServer
from support.kube_operator import JOBS
from support.operator_process import OperatorProcess, operator_process
from support.waiting import wait_until

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]
MANY, EACH, NODES = 20, 20, 10
PATIENCE: Final = 300.0
RULES: Final = [
    {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}
    for right in (*JOB_RIGHTS, *OWN_RIGHTS)
]


class Crowd:
    """The jobs and pods of one namespace."""

    def __init__(self, server: KubeApiServer, operator: OperatorProcess, namespace: str) -> None:
        self._server = server
        self._operator = operator
        self._namespace = namespace

    def submit(self) -> None:
        for index in range(MANY):
            body = job_body(f"job-{index}", EACH)
            template = {"spec": {"schedulerName": SCHEDULER}}
            for part in ("producers", "consumers", "services"):
                body["spec"].setdefault(part, {})["template"] = template
            body["spec"]["store"]["mooncake"]["nodes"]["template"] = template
            self._server.must("POST", JOBS.format(self._namespace), body)

    def change(self, index: int, **spec: object) -> None:
        """Edit a job."""
        path = f"{JOBS.format(self._namespace)}/job-{index}"
        self._server.must("PATCH", path, {"spec": spec}, content=MERGE)

    def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._server.must("GET", self._path())["items"]
        return found

    def delete(self, pod: dict[str, Any]) -> None:
        """As `kubectl delete`: with the pod's own grace."""
        self._server.must("DELETE", self._path(pod["metadata"]["name"]))

    def wait_running(self, count: int) -> None:
        """Until exactly so many pods are there, and each is ready on a node."""

        def whole() -> bool:
            found = self.pods()
            return len(found) == count and all(ready(pod) for pod in found)

        self._wait(whole, lambda: f"{count} pods run: {sum(map(ready, self.pods()))} do")

    def wait_gone(self, count: int) -> None:
        """Until no more than so many pods are left, whatever they do."""
        self._wait(lambda: len(self.pods()) <= count, lambda: f"{count} pods are left, not {len(self.pods())}")

    def _wait(self, fact: Any, what: Any) -> None:  # noqa: ANN401 - two functions
        wait_until(fact, lambda: f"{what()}: {self._operator.lines()[-3:]}", seconds=PATIENCE, poll_seconds=0.2)

    def _path(self, name: str = "") -> str:
        return f"/api/v1/namespaces/{self._namespace}/pods" + (f"/{name}" if name else "")


def ready(pod: dict[str, Any]) -> bool:
    conditions = {it["type"]: it["status"] for it in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def index_of(pod: dict[str, Any]) -> tuple[str, str]:
    """Role and index."""
    labels = pod["metadata"]["labels"]
    return labels[names.LABEL_ROLE], labels[names.LABEL_INDEX]


@pytest.fixture
def crowd(jobs: KubeApiServer, tmp_path: Path) -> Iterator[Crowd]:
    """Jobs that an operator process serves on fake nodes."""
    namespace = jobs.namespace("crowd")
    jobs.grant(namespace, RULES)
    config = jobs.kubeconfig("operator", namespace=namespace)
    with fake_nodes(jobs, tmp_path, NODES), operator_process("op-1", config, namespace, tmp_path) as operator:
        operator.leading()
        yield Crowd(jobs, operator, namespace)
        assert not [line for line in operator.lines() if line.get("level") == "ERROR"]
        assert operator.end() == 0


def test_jobs_on_fake_nodes_start_lose_pods_are_suspended_and_come_back(crowd: Crowd) -> None:
    crowd.submit()
    crowd.wait_running(MANY * EACH)
    assert len({pod["spec"]["nodeName"] for pod in crowd.pods()}) == NODES
    before = {pod["metadata"]["uid"] for pod in crowd.pods()}
    victims = [pod for pod in crowd.pods() if index_of(pod) == ("producer", "0")]
    assert len(victims) == MANY
    for pod in victims:
        crowd.delete(pod)
    crowd.wait_running(MANY * EACH)
    after = {pod["metadata"]["uid"] for pod in crowd.pods()}
    assert before - after == {pod["metadata"]["uid"] for pod in victims}, "no other pod was made again"
    ordinals = [
        pod["metadata"]["labels"][names.LABEL_ORDINAL] for pod in crowd.pods() if index_of(pod) == ("producer", "0")
    ]
    assert ordinals == ["2"] * MANY, "no name is used twice"
    for index in range(MANY // 2):
        crowd.change(index, suspend=True)
    crowd.wait_gone(MANY * EACH // 2)
    for index in range(MANY // 2):
        crowd.change(index, suspend=False)
    crowd.wait_running(MANY * EACH)
    kept = {pod["metadata"]["uid"] for pod in crowd.pods()} & after
    assert len(kept) == MANY * EACH // 2, "jobs that were not suspended lost nothing"
