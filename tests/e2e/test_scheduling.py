"""Pods that a kubelet cannot start yet, and pods that a scheduler takes away: neither is the job's own failure.

Each test names, after "Catches:", the change of ours that it exists to notice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from support.cluster_nodes import open_place, place, placed, workers
from support.kubectl import Kubectl, Refused, kubeconfig
from support.pod_drill import GATE, Drill, drill, drilled, gated, replaced, seen
from support.pod_history import pod_history

pytestmark = pytest.mark.e2e
Weights = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="session")
def weights(undisturbed: Weights) -> str:
    """What every drill must end with."""
    return undisturbed(drill("undisturbed"))


def _with(body: dict[str, Any], role: str, spec: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
    """`body` with more in the template of `role`."""
    main = body["spec"][role]["template"]["spec"]["containers"][0]
    body["spec"][role]["template"] = {"spec": spec | {"containers": [main | container]}}
    return body


@pytest.mark.parametrize(
    "container",
    [
        {"envFrom": [{"configMapRef": {"name": "none"}}]},
        {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "none", "key": "none"}}}]},
    ],
    ids=["envFrom", "valueFrom"],
)
def test_an_environment_from_other_objects_cannot_be_expressed(kubectl: Kubectl, container: dict[str, Any]) -> None:
    """Catches: a template that refers to what may be missing, or secret, where a literal is meant."""
    body = _with(drill("env-refers"), "consumers", {}, container)
    (field,) = [name for name in ("envFrom", "valueFrom") if name in str(container)]
    with pytest.raises(Refused) as refused:
        kubectl.run("apply", "--dry-run=server", "-f", "-", given=yaml.safe_dump(body))
    assert (
        f'unknown field "spec.consumers.template.spec.containers[0].{"" if field == "envFrom" else "env[0]."}'
        in str(refused.value)
    )
    assert field in str(refused.value)


def test_a_container_that_cannot_be_configured_is_waiting_and_starts_when_what_it_misses_appears(
    kubectl: Kubectl, weights: str
) -> None:
    """Catches: CreateContainerConfigError taken for a crash: a budget spent on it, or pods made again and again.

    The one reference of a template that a kubelet looks up when it configures a container is a folder of a claim.
    """
    name = "config-waits"
    missing = kubeconfig().parent / "inputs" / "data" / name
    mount = {"name": "x-more", "mountPath": "/more", "subPath": name, "readOnly": True}
    volume = {"name": "x-more", "persistentVolumeClaim": {"claimName": name, "readOnly": True}}
    body = _with(drill(name), "consumers", {"volumes": [volume]}, {"volumeMounts": [mount]})
    with _read_only(kubectl, name), drilled(kubectl, body) as job, pod_history(kubectl, name) as pods:
        found = seen(lambda: _waiting_for_its_folder(job), "ConsumersReady says what is waited for")
        assert found["status"] == "False"
        missing.mkdir()
        try:
            status = job.recovered(weights)
        finally:
            missing.rmdir()
    assert (status["attempt"], status["restarts"], status["incidents"]) == (1, 0, [])
    assert sorted(it.rpartition("-")[2] for it in pods.uids("consumer").values()) == ["a1", "a1"]
    assert all(unit["pausesWithoutProgress"] == 0 for unit in status["units"])


@contextmanager
def _read_only(kubectl: Kubectl, name: str) -> Iterator[None]:
    """A claim like `data`, on a volume of which kubelets can write nothing, while the block runs."""
    shape = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    volume = shape | {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/eyas/inputs/data", "type": "Directory"}}
    claim = shape | {"volumeName": name, "resources": {"requests": {"storage": "1Gi"}}}
    try:
        for kind, spec in (("PersistentVolume", volume), ("PersistentVolumeClaim", claim)):
            kubectl.apply({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
        yield
    finally:
        kubectl.run("delete", "pvc,pv", name, "--ignore-not-found", "--wait=false")


def _waiting_for_its_folder(job: Drill) -> dict[str, Any]:
    found = job.condition("ConsumersReady")
    waits = found.get("reason") == "PodsWaiting" and "CreateContainerConfigError" in found["message"]
    return found if waits and "subPath" in found["message"] else {}


def test_a_preempted_consumer_is_an_uncounted_disruption_of_its_gang(kubectl: Kubectl, weights: str) -> None:
    """Catches: a preemption that spends the budget, and a gang that is cut off in the middle of a window for it.

    The gang has the last two GPUs of a full node; then somebody more important wants one of them.
    """
    name = "preempted"
    node = workers(kubectl)[0]
    body = placed(drill(name, seconds=0.3, **{"consumers.gpus": 1}), "consumers")
    body["spec"]["consumers"]["template"]["spec"]["priorityClassName"] = f"{name}-low"
    with (
        _priority(kubectl, f"{name}-low", -100),
        _priority(kubectl, f"{name}-high", 100),
        place(kubectl, name, node),
        _holding(kubectl, f"{name}-others", 6, node, f"{name}-high"),
        drilled(kubectl, body) as job,
        pod_history(kubectl, name) as pods,
    ):
        job.training()
        open_place(kubectl, name)
        with _holding(kubectl, f"{name}-by", 1, node, f"{name}-high"):
            status = job.recovered(weights)
            assert kubectl.get("pod", f"{name}-by")["spec"]["nodeName"] == node
    incident = replaced(status, "consumers", "Disrupted")
    assert (incident["counted"], incident["node"], incident["windowsReplayed"]) == (False, node, 0)
    assert (status["attempt"], status["restarts"], status["strikes"]) == (2, 1, [])
    reasons = {
        entry["reason"]
        for _, pod in pods.versions("consumer")
        for entry in pod["status"].get("conditions", ())
        if entry["type"] == "DisruptionTarget"
    }
    assert reasons == {"PreemptionByScheduler"}
    assert {code for pod, code in pods.exit_codes("consumer").items() if pod.endswith("-a1")} == {75}


def test_a_job_whose_gang_finds_no_place_again_gives_its_producers_back_and_goes_on_when_there_is_one(
    kubectl: Kubectl, weights: str
) -> None:
    """Catches: a half-dead job that holds what it cannot use, and a release that costs budget, services or a bit."""
    name = "released"
    limits: dict[str, Any] = {"recovery.recoveryTimeoutSeconds": 10}
    limits["recovery.backoff"] = {"baseSeconds": 1, "maxSeconds": 10}
    with gated(kubectl, name, "consumers", seconds=0.3, **limits) as (job, opened):
        opened()
        job.training()
        services = job.pod("metadata")
        kubectl.run("label", "nodes", "--all", f"{GATE}-{name}-")
        job.delete(job.pod("consumer"))
        seen(lambda: _released(job), "the end of producers and consumers")
        told = job.condition("Recovering")
        assert (told["status"], told["reason"]) == ("True", "RecoveryTimeout")
        assert job.pod("metadata") == services
        opened()
        status = job.recovered(weights)
    incident = replaced(status, "consumers", "RecoveryTimeout")
    assert not incident["counted"]
    assert "could not start for 10 seconds (Unschedulable" in incident["message"]
    assert (status["restarts"], status["storeEpoch"]) == (1, 1)
    assert status["attempt"] >= 3, "the gang that waited was not given back"


def _released(job: Drill) -> bool:
    reasons = {job.condition(kind).get("reason") for kind in ("ProducersReady", "ConsumersReady")}
    return reasons == {"Released"} and not job.pods("producer") and not job.pods("consumer")


@contextmanager
def _priority(kubectl: Kubectl, name: str, value: int) -> Iterator[None]:
    kubectl.apply(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value}
    )
    try:
        yield
    finally:
        kubectl.run("delete", "priorityclass", name, "--ignore-not-found")


@contextmanager
def _holding(kubectl: Kubectl, name: str, gpus: int, node: str, priority: str) -> Iterator[None]:
    """A pod that has so many GPUs of `node`, or waits for them, while the block runs."""
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    container = {
        "name": "main", "image": "eyas-runtime:0.1.0", "command": ["python", "-c", "import signal; signal.pause()"],
        "resources": {"limits": {"nvidia.com/gpu": gpus}},
        "securityContext": restricted | {"seccompProfile": {"type": "RuntimeDefault"}},
    }  # fmt: skip
    spec = {"containers": [container], "priorityClassName": priority, "terminationGracePeriodSeconds": 1}
    spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    try:
        yield
    finally:
        kubectl.run("delete", "pod", name, "--ignore-not-found", "--wait=false")
