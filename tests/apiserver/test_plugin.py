"""`kubectl eyas` on a real API server: what it shows of a job, what it hurts, and what it says to who may not."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from eyas_cli.cluster import events
from eyas_cli.cluster.commands import main
from eyas_operator.names import JobIdentity
from support.kube_apiserver import KubeApiServer
from support.kube_operator import JOBS, Clock, Kubelet, ToldReports, operator, submit
from support.operator_world import a_report

pytestmark = pytest.mark.apiserver
VIEWER = (
    {"apiGroups": ["eyas.dev"], "resources": ["disaggtrainingjobs"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["pods", "persistentvolumeclaims", "events"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["get", "list", "watch"]},
)


class World(NamedTuple):
    """A job whose pods are ready, and one of whose producers was replaced."""

    server: KubeApiServer
    job: JobIdentity
    kubelet: Kubelet
    say: Callable[..., tuple[int, str]]


@pytest.fixture
def world(jobs: KubeApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    namespace = jobs.namespace("plugin")
    job = submit(jobs, namespace)
    kubelet = Kubelet(jobs, namespace)

    async def train() -> None:
        clock, reports = Clock(), ToldReports()
        async with operator(jobs, tmp_path, clock, reports=reports) as running:
            await running.rest(job, kubelet, clock)
            reports.report = a_report(
                job_uid=job.job_uid, store_epoch=1, attempt=1, total_steps=20, total_training_steps=20,
                acked_step=5, acked_training_step=5, total_samples=160, samples_committed=64,
                last_metrics={"loss": 2.5}, steps_per_second=0.5,
            )  # fmt: skip
            await running.rest(job, kubelet, clock)
            kubelet.kill("producer-0-o1")
            clock.now += 20.0
            await running.rest(job, kubelet, clock)

    asyncio.run(train())

    def say(*arguments: str, user: str = "admin") -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--kubeconfig", str(jobs.kubeconfig(user)), "--namespace", namespace])
        caught = capsys.readouterr()
        return int(end.value.code or 0), caught.out + caught.err

    return World(jobs, job, kubelet, say)


def allow(world: World, rules: object) -> None:
    """Give the user `nobody` these rules in the job's namespace."""
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{world.job.namespace}"
    world.server.must("POST", f"{roles}/roles", {"metadata": {"name": "look"}, "rules": rules})
    binding = {
        "metadata": {"name": "look"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "look"},
        "subjects": [{"kind": "User", "name": "nobody"}],
    }
    world.server.must("POST", f"{roles}/rolebindings", binding)


def test_status_shows_units_nodes_progress_and_incidents(world: World) -> None:
    code, said = world.say("status", world.job.name, "--no-live")
    assert code == 0
    for word in ("producer-0", "producer-1", "consumer-1", "metadata", "node-1", "step 5/20", "loss 2.5", "PodDeleted"):
        assert word in said, said
    rows = {line.split()[0]: line.split()[1:3] for line in said.splitlines() if line.startswith("producer-")}
    assert rows == {"producer-0": ["Ready", "1"], "producer-1": ["Ready", "0"]}


def test_status_as_json_is_the_resources_own(world: World) -> None:
    code, said = world.say("status", world.job.name, "--json")
    there = world.server.must("GET", f"{JOBS.format(world.job.namespace)}/{world.job.name}")["status"]
    assert (code, json.loads(said)) == (0, there)


def test_who_may_only_look_gets_the_operators_numbers_and_is_told_so(world: World) -> None:
    allow(world, VIEWER)
    code, said = world.say("status", world.job.name, user="nobody")
    assert code == 0
    assert "step 5/20" in said
    assert "role eyas-curves" in " ".join(said.split())


def test_who_may_nothing_is_told_so_in_one_sentence(world: World) -> None:
    code, said = world.say("status", world.job.name, user="nobody")
    assert code != 0
    assert "cannot get resource" in said
    assert len(said.strip().splitlines()) == 1


def test_a_job_that_is_not_there_is_said_by_name(world: World) -> None:
    for command in (("status", "other"), ("events", "other"), ("logs", "other"), ("kill", "other", "all")):
        code, said = world.say(*command)
        assert code == 78
        assert "there is no job other" in said


def test_events_are_those_of_this_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PAGE", 1)
    other = submit(world.server, world.job.namespace, "other")
    note = {
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "eventTime": "2027-01-01T00:00:00.000000Z", "reportingController": "t", "reportingInstance": "t",
        "action": "t", "reason": "Strange", "type": "Normal", "note": "of another job",
        "regarding": {"kind": "DisaggTrainingJob", "name": "other", "namespace": other.namespace, "uid": other.uid},
    }  # fmt: skip
    for name in ("a", "x"):
        # Pages are in the order of names: the first has nothing of this job.
        body = note | {"metadata": {"name": name, "namespace": other.namespace}}
        world.server.must("POST", f"/apis/events.k8s.io/v1/namespaces/{other.namespace}/events", body)
    code, said = world.say("events", world.job.name)
    assert code == 0
    assert "disaggtrainingjob/demo" in said
    assert "of another job" not in said


def test_kill_deletes_the_pods_of_one_unit_and_no_other(world: World) -> None:
    before = {pod["metadata"]["name"] for pod in world.kubelet.pods()}
    code, said = world.say("kill", world.job.name, "producer-1")
    gone = before - {pod["metadata"]["name"] for pod in world.kubelet.pods()}
    assert code == 0
    assert [name.rpartition("-o")[0].endswith("producer-1") for name in gone] == [True]
    assert gone.pop() in said


def test_eviction_keeps_the_jobs_budget(world: World) -> None:
    code, _ = world.say("kill", world.job.name, "metadata", "--evict")
    assert code == 0, "a singleton has no budget"
    leaving = [pod for pod in world.kubelet.pods() if "deletionTimestamp" in pod["metadata"]]
    assert [pod["metadata"]["labels"]["eyas.dev/role"] for pod in leaving] == ["metadata"]
    code, said = world.say("kill", world.job.name, "producer", "--evict")
    assert code == 75, "nobody counts healthy pods here, so every eviction would break the budget"
    assert "disruption budget" in said


def test_an_unknown_unit_names_those_that_there_are(world: World) -> None:
    code, said = world.say("kill", world.job.name, "trainer")
    assert code == 78
    assert "producer-0" in said


def test_doctor_looks_at_everything_and_finds_no_operator_here(world: World) -> None:
    code, said = world.say("doctor", world.job.name, "--json")
    checks = {(check["name"], check["level"]) for check in json.loads(said)}
    assert code == 78
    assert {("definition", "ok"), ("operator", "error"), ("storage", "error"), ("clock", "ok")} <= checks
    assert ("job", "ok") in checks
    assert not [check for check in checks if check[0] == "rights" and check[1] != "ok"]


def test_doctor_tells_who_leads(world: World) -> None:
    labels = {"app.kubernetes.io/name": "eyas", "app.kubernetes.io/component": "operator"}
    container = {
        "name": "operator", "image": "x",
        "securityContext": {
            "allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }  # fmt: skip
    pod = {"metadata": {"name": "eyas-operator-0", "labels": labels}, "spec": {"containers": [container]}}
    world.server.must("POST", world.kubelet.path("pods"), pod)
    lease = {
        "metadata": {"name": "eyas-operator"},
        "spec": {
            "holderIdentity": "eyas-operator-0", "leaseDurationSeconds": 15, "renewTime": "2020-01-01T00:00:00.000000Z",
        },
    }  # fmt: skip
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{world.job.namespace}/leases"
    world.server.must("POST", leases, lease)
    told = {check["name"]: check for check in json.loads(world.say("doctor", "--json")[1])}
    assert told["operator"]["level"] == "warning", "its pod does not run"
    assert told["leader"]["level"] == "error"
    assert "nobody took over" in told["leader"]["text"]


def test_doctor_says_what_a_user_may_not_and_which_role_gives_it(world: World) -> None:
    allow(world, VIEWER)
    _, said = world.say("doctor", "--json", user="nobody")
    rights = {check["text"].partition(":")[0]: check for check in json.loads(said) if check["name"] == "rights"}
    assert rights["see jobs"]["level"] == "ok"
    assert rights["make jobs"]["level"] == "warning"
    assert "ClusterRole editor" in rights["make jobs"]["text"]
    assert "ClusterRole curves" in rights["live numbers, plot"]["text"]


def test_doctor_explains_why_a_pod_waits(world: World) -> None:
    name = world.kubelet.named("consumer-0-a1")["metadata"]["name"]
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    status = {
        "phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [
            {
                "name": "main", "image": "x", "imageID": "", "restartCount": 0, "ready": False,
                "state": {"waiting": waiting},
            }
        ],
    }  # fmt: skip
    path = f"{world.kubelet.path('pods', name)}/status"
    world.server.must("PATCH", path, {"status": status}, content="application/merge-patch+json")
    _, said = world.say("doctor", world.job.name)
    assert "consumer-0 waits: ImagePullBackOff no such image: the node cannot pull the image" in said
