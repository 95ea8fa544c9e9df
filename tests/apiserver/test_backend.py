"""The Kubernetes backend brings a job from nothing to all children, keeps still, and touches nobody else's objects."""

from dataclasses import replace
from pathlib import Path

import pytest

from eyas_operator import names
from eyas_operator.api.status import load_status
from eyas_operator.backends.kubernetes import listing
from eyas_operator.backends.kubernetes.recorder import BURST, REFILL_SECONDS
from eyas_operator.cluster import Event, ObjectRef
from eyas_operator.desired.build import metadata
from eyas_operator.errors import Refused
from eyas_operator.names import JobIdentity, Role
from support.kube_apiserver import MERGE, KubeApiServer
from support.kube_operator import SETTINGS, operator, status_of
from support.kube_stage import STARTED, Stage, play
from support.operator_world import a_report

pytestmark = pytest.mark.apiserver


def test_job_comes_from_nothing_to_all_children(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.settle()
        assert stage.hostnames() == STARTED
        children = await stage.process.cluster.list_children(stage.job)
        kinds = sorted({child.kind for child in children.others})
        assert kinds == ["ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Service"]
        assert len(children.claims) == 2
        secrets = stage.server.must("GET", stage.kubelet.path("secrets"))["items"]
        assert sorted(secret["metadata"]["name"].rpartition("-")[2] for secret in secrets) == ["reader", "tokens"]

    play(jobs, tmp_path, scene)


def test_stored_status_is_what_was_planned(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.settle()
        stage.kubelet.end("producer-0-o1", 1, message="it broke")
        outcome = await stage.one_pass()
        assert outcome.status is not None
        assert outcome.status.incidents
        assert load_status(status_of(stage.server, stage.job)) == outcome.status

    play(jobs, tmp_path, scene)


def test_second_pass_writes_nothing_and_a_pass_at_rest_asks_nothing(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.settle()
        writes = stage.process.writes()
        outcome = await stage.one_pass()
        assert not outcome.acted
        assert stage.process.writes() == writes
        await stage.process.cluster.relist(stage.job.namespace)
        asked = sum(stage.process.requests.values())
        for _ in range(5):
            await stage.one_pass()
        assert sum(stage.process.requests.values()) == asked

    play(jobs, tmp_path, scene)


def test_successor_of_another_version_writes_nothing(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.settle()
        later = replace(SETTINGS, version="999.0")
        async with operator(stage.server, tmp_path, stage.clock, reports=stage.reports, settings=later) as successor:
            await successor.rest(stage.job, stage.kubelet, stage.clock)
            assert successor.writes() == 0
            stage.kubelet.kill("producer-0-o1")
            await successor.rest(stage.job, stage.kubelet, stage.clock)
        versions = {
            pod["spec"]["hostname"]: pod["metadata"]["labels"][names.LABEL_VERSION] for pod in stage.kubelet.pods()
        }
        assert [name for name, version in versions.items() if version == "999.0"] == ["producer-0-o2"]

    play(jobs, tmp_path, scene)


def test_progress_alone_costs_one_request(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.settle()
        stage.reports.report = a_report(job_uid=stage.job.job_uid, acked_step=1)
        await stage.settle()
        await stage.process.cluster.relist(stage.job.namespace)
        stage.reports.report = a_report(job_uid=stage.job.job_uid, acked_step=2)
        stage.clock.now += 60
        before = stage.process.requests.copy()
        await stage.one_pass()
        assert stage.process.requests - before == {"PUT": 1}
        assert status_of(stage.server, stage.job)["progress"]["step"] == 2

    play(jobs, tmp_path, scene)


def test_glimpse_that_wants_to_act_is_checked_before_anything_is_done(jobs: KubeApiServer, tmp_path: Path) -> None:
    # The watch lies: it tells of a death that did not happen.
    async def scene(stage: Stage) -> None:
        await stage.settle()
        await stage.process.cluster.relist(stage.job.namespace)
        pod = stage.kubelet.named("producer-0-o1")
        stage.process.cluster.children.observe("DELETED", pod | {"kind": "Pod"})
        writes = stage.process.writes()
        await stage.one_pass()
        assert stage.process.writes() == writes
        assert stage.hostnames() == STARTED

    play(jobs, tmp_path, scene)


def test_missed_event_is_repaired_by_the_next_list_of_all(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.settle()
        await stage.process.cluster.relist(stage.job.namespace)
        stage.kubelet.kill("producer-0-o1")
        await stage.one_pass()
        assert "producer-0-o2" not in stage.hostnames()
        assert await stage.process.cluster.relist(stage.job.namespace) == {(stage.job.namespace, stage.job.name)}
        await stage.settle()
        assert "producer-0-o2" in stage.hostnames()

    play(jobs, tmp_path, scene)


def test_objects_of_others_are_left_alone_to_the_end(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.settle()
        stranger = JobIdentity(namespace=stage.job.namespace, name="demo", uid="00000000-1111-2222-3333-444444444444")
        mine = {names.LABEL_JOB_UID: stage.job.uid}
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}
        foreign = [
            # Labelled as ours by somebody, but owned by nobody, or by a job that had the same name.
            ("configmaps", {"metadata": {"name": "labelled", "labels": mine}}),
            ("configmaps", {"metadata": metadata(stranger, "owned") | {"labels": mine}}),
            ("persistentvolumeclaims", {"metadata": {"name": "labelled", "labels": mine}, "spec": claim}),
        ]
        for plural, body in foreign:
            stage.server.must("POST", stage.kubelet.path(plural), body)
        stage.kubelet.end("producer-0-o1", 78)
        await stage.settle()
        assert stage.condition("Failed")["status"] == "True"
        assert stage.hostnames() == []
        for plural, body in foreign:
            found = stage.server.must("GET", stage.kubelet.path(plural, body["metadata"]["name"]))
            assert "deletionTimestamp" not in found["metadata"]

    play(jobs, tmp_path, scene)


def test_name_that_somebody_took_is_refused_and_stays_his(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        cluster = stage.process.cluster
        service = {"metadata": {"name": "taken"}, "spec": {"ports": [{"port": 1}]}}
        stage.server.must("POST", stage.kubelet.path("services"), service)
        stage.server.must("POST", stage.kubelet.path("configmaps"), {"metadata": {"name": "taken"}})
        meta = metadata(stage.job, "taken")
        with pytest.raises(Refused, match="belongs to somebody else: delete it"):
            await cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service["spec"]})
        with pytest.raises(Refused, match="belongs to somebody else: delete it"):
            await cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
        # A label of ours on what is not ours makes it no configuration of ours.
        label = {"metadata": {"labels": {names.LABEL_JOB_UID: stage.job.uid}}}
        stage.server.must("PATCH", stage.kubelet.path("configmaps", "taken"), label, content=MERGE)
        with pytest.raises(Refused, match="belongs to somebody else: delete it"):
            await cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
        assert "labels" not in stage.server.must("GET", stage.kubelet.path("services", "taken"))["metadata"]

    play(jobs, tmp_path, scene)


def test_lists_of_many_pages_are_whole(jobs: KubeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)

    async def scene(stage: Stage) -> None:
        await stage.settle()
        found = await stage.process.cluster.list_children(stage.job)
        assert sorted(pod.metadata.name for pod in found.pods) == [f"{stage.job.stem}-{name}" for name in STARTED]

    play(jobs, tmp_path, scene)


def test_what_the_cluster_refuses_is_told_and_tried_again(jobs: KubeApiServer, tmp_path: Path) -> None:
    # A fabric asks for IPC_LOCK, which a restricted namespace does not allow.
    async def scene(stage: Stage) -> None:
        for _ in range(8):
            await stage.one_pass()
            if stage.condition("Accepted")["status"] == "False":
                break
        told = stage.condition("Accepted")
        assert (told["status"], told["reason"]) == ("False", "ClusterRefused")
        assert "IPC_LOCK" in told["message"]
        for _ in range(4):
            await stage.one_pass()
            assert stage.condition("Accepted")["lastTransitionTime"] == told["lastTransitionTime"], "it flaps"
        allowed = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
        stage.server.must("PATCH", f"/api/v1/namespaces/{stage.job.namespace}", allowed, content=MERGE)
        for _ in range(4):
            stage.clock.now += 60
            await stage.settle()
        assert stage.condition("Accepted")["status"] == "True"
        assert [name.rpartition("-")[0] for name in stage.hostnames()] == [name.rpartition("-")[0] for name in STARTED]
        assert stage.condition("Failed")["status"] == "False"

    play(jobs, tmp_path, scene, fabric={"mode": "DevicePlugin"})


def test_name_that_somebody_took_is_told_until_it_is_free(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        name = names.service(stage.job, Role.METADATA)
        service = {"metadata": {"name": name}, "spec": {"ports": [{"port": 1}]}}
        stage.server.must("POST", stage.kubelet.path("services"), service)
        for _ in range(4):
            await stage.one_pass()
        told = stage.condition("Accepted")
        assert (told["status"], told["reason"]) == ("False", "ClusterRefused")
        assert f"{name} is there already and belongs to somebody else" in told["message"]
        stage.server.must("DELETE", stage.kubelet.path("services", name))
        for _ in range(4):
            stage.clock.now += 60
            await stage.settle()
        assert stage.condition("Accepted")["status"] == "True"
        assert [found.rpartition("-")[0] for found in stage.hostnames()] == [it.rpartition("-")[0] for it in STARTED]

    play(jobs, tmp_path, scene)


def test_pod_that_is_no_pod_is_told_with_its_field(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        for _ in range(8):
            await stage.one_pass()
        assert "nodeSelector" in stage.condition("Accepted")["message"]

    bad = {"replicas": 1, "template": {"spec": {"nodeSelector": {"not a key!": "pool"}}}}
    play(jobs, tmp_path, scene, producers=bad)


def test_crash_is_told_in_one_event_on_the_job_before_its_pod_is_gone(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.settle()
        stage.kubelet.end("producer-0-o1", 139, message="segmentation fault in the engine")
        await stage.settle()
        path = f"/apis/events.k8s.io/v1/namespaces/{stage.job.namespace}/events"
        events = [it for it in stage.server.must("GET", path)["items"] if it["reason"] == "PodReplaced"]
        assert len(events) == 1
        assert "segmentation fault in the engine" in events[0]["note"]
        assert "node-1" in events[0]["note"]
        assert events[0]["regarding"]["uid"] == stage.job.uid
        assert events[0]["reportingController"] == "eyas.dev/operator"

    play(jobs, tmp_path, scene)


def test_same_words_are_one_event_with_a_count_whoever_says_them(jobs: KubeApiServer, tmp_path: Path) -> None:
    event = Event(type="Warning", reason="PodReplaced", message="producer-0 again", action="Restart")

    async def scene(stage: Stage) -> None:
        path = f"/apis/events.k8s.io/v1/namespaces/{stage.job.namespace}/events"
        for _ in range(3):
            stage.clock.now += 5
            await stage.process.cluster.post_events(stage.job, (event,))
        (found,) = stage.server.must("GET", path)["items"]
        assert found["series"]["count"] == 3
        async with operator(stage.server, tmp_path, stage.clock) as successor:
            await successor.cluster.post_events(stage.job, (event,))
        assert len(stage.server.must("GET", path)["items"]) == 1
        stage.clock.now += 3600
        await stage.process.cluster.post_events(stage.job, (event,))
        assert len(stage.server.must("GET", path)["items"]) == 2

    play(jobs, tmp_path, scene)


def test_job_that_says_too_much_is_cut_off_until_time_has_passed(jobs: KubeApiServer, tmp_path: Path) -> None:
    def events(count: int) -> tuple[Event, ...]:
        return tuple(Event(type="Normal", reason="Said", message=f"{n} of {count}", action="Say") for n in range(count))

    async def scene(stage: Stage) -> None:
        path = f"/apis/events.k8s.io/v1/namespaces/{stage.job.namespace}/events"
        await stage.process.cluster.post_events(stage.job, events(2 * BURST))
        assert len(stage.server.must("GET", path)["items"]) == BURST
        stage.clock.now += 3 * REFILL_SECONDS
        await stage.process.cluster.post_events(stage.job, events(5))
        assert len(stage.server.must("GET", path)["items"]) == BURST + 3

    play(jobs, tmp_path, scene)


def test_events_that_cannot_be_posted_fail_no_pass(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        async with operator(stage.server, tmp_path, stage.clock, user="nobody") as mute:
            event = Event(type="Normal", reason="Said", message="m", action="Say")
            await mute.cluster.post_events(stage.job, (event,))

    play(jobs, tmp_path, scene)


def test_tokens_are_made_once_and_can_be_read_by_those_who_hold_the_key(jobs: KubeApiServer, tmp_path: Path) -> None:
    def data(stage: Stage) -> dict[str, dict[str, str]]:
        found = stage.server.must("GET", stage.kubelet.path("secrets"))["items"]
        return {secret["metadata"]["name"].rpartition("-")[2]: secret["data"] for secret in found}

    async def scene(stage: Stage) -> None:
        await stage.settle()
        first = data(stage)
        assert len(set(first["tokens"].values())) == 4
        stage.kubelet.kill("producer-0-o1")
        await stage.settle()
        assert data(stage) == first
        (tmp_path / "previous").write_text("k" * 64)
        (tmp_path / "current").write_text("n" * 64)
        stage.kubelet.kill("producer-0-o2")
        await stage.settle()
        after = data(stage)
        assert after["tokens"] == first["tokens"]
        assert after["reader"] != first["reader"]
        (tmp_path / "previous").unlink()
        (tmp_path / "current").write_text("p" * 64)
        stage.reports.refused = True
        await stage.settle()
        last = data(stage)
        assert last["tokens"] == first["tokens"]
        assert last["reader"] not in (first["reader"], after["reader"]), "although no pod is made"
        assert not (await stage.one_pass()).acted, "once: the kubelet takes its time to bring it into the pod"

    play(jobs, tmp_path, scene)


def test_delete_names_the_object_that_was_seen(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.settle()
        name = stage.kubelet.named("producer-0-o1")["metadata"]["name"]
        await stage.process.cluster.delete(stage.job, ObjectRef(kind="Pod", name=name, uid="other"), grace_seconds=1)
        assert "deletionTimestamp" not in stage.kubelet.named("producer-0-o1")["metadata"]

    play(jobs, tmp_path, scene)
