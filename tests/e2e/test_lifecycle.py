"""A job's life as its owner leads it: suspended, resumed, resized, deleted, made again, timed."""

from typing import Any

import pytest

from support.cluster_drill import (
    STEPS,
    Weights,
    children,
    drill,
    exact,
    failed,
    forgotten,
    gone,
    quick,
    roles,
    uid_of,
    wait_for,
    wait_until,
)
from support.cluster_job import applied
from support.kubectl import Kubectl
from support.pod_history import pod_history

pytestmark = pytest.mark.e2e
CHECKPOINTS = "PersistentVolumeClaim/-checkpoints"


def patch(kubectl: Kubectl, name: str, spec: str) -> None:
    kubectl.run("patch", "dtj", name, "--type=merge", "-p", f'{{"spec": {spec}}}')


def test_suspend_stops_at_a_checkpointed_boundary_and_resume_goes_on_there(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    name = "life-suspend"
    with applied(kubectl, drill(name)) as job, pod_history(kubectl, name) as pods:
        job.wait_for_step(3)
        patch(kubectl, name, '{"suspend": true}')
        kubectl.run("wait", "--for=condition=Suspended", f"dtj/{name}", "--timeout=120s", seconds=130)
        still = wait_for(job, "no pod is left", lambda _: not kubectl.items("pods", "-l", f"eyas.dev/job-name={name}"))
        assert list(pods.exit_codes("consumer").values()) == [75], "ranks end a drain with the code for temporary ends"
        boundary = still["checkpoint"]["step"]
        assert 3 <= boundary == still["progress"]["step"] < STEPS, "a step after the checkpoint, or the end already"
        assert still["state"] == "Suspended"
        patch(kubectl, name, '{"suspend": false}')
        resumed = wait_for(job, "attempt 2", lambda it: it["attempt"] == 2)
        assert resumed["startStep"] == boundary
        status = job.complete(300)
    assert status["result"]["weightsSha256"] == undisturbed(quick())
    assert exact(status) == ("True", "NoDeviation")
    assert (status["attempt"], status["restarts"]) == (2, 0), "who asks for a pause has no failure"
    assert sum(incident["windowsReplayed"] for incident in status["incidents"]) == 0


def test_producers_scaled_by_kubectl_scale_change_no_bit(kubectl: Kubectl, undisturbed: Weights) -> None:
    name = "life-scale"
    with applied(kubectl, drill(name)) as job:
        job.wait_for_step(1)
        kubectl.run("scale", "dtj", name, "--replicas=3")
        wait_for(job, "three producers", lambda it: roles(it)["producer"] == (3, 3))
        assert int(kubectl.get("dtj", name, "--subresource=scale")["status"]["replicas"]) == 3
        kubectl.run("scale", "dtj", name, "--replicas=1")
        wait_until("one producer", lambda: len(job.pods("producer")) == 1)
        status = job.complete(300)
    assert status["result"]["weightsSha256"] == undisturbed(quick())
    assert (status["attempt"], status["restarts"], exact(status)) == (1, 0, ("True", "NoDeviation"))


def test_consumers_resized_mid_run_begin_the_next_attempt_at_a_boundary_and_exact_says_so(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    name = "life-resize"
    shared: dict[str, Any] = {"volumes.checkpoints.accessMode": "ReadWriteMany"}
    with applied(kubectl, drill(name, **shared)) as job, pod_history(kubectl, name) as pods:
        job.wait_for_step(3)
        patch(kubectl, name, '{"consumers": {"replicas": 2}}')
        resized = wait_for(job, "two consumers", lambda it: roles(it)["consumer"] == (2, 2))
        assert (resized["attempt"], resized["restarts"]) == (2, 0)
        first = [code for pod, code in pods.exit_codes("consumer").items() if pod.endswith("-a1")]
        assert first == [75], "the old gang was cut off"
        status = job.complete(300)
    assert {pod.rsplit("-", 2)[-2:][0] for pod in pods.uids("consumer").values()} == {"0", "1"}
    # The fake trainer's sums do not hang on the width: another width is no failure, but nobody may call it exact.
    assert status["result"]["weightsSha256"] == undisturbed(quick())
    assert exact(status) == ("False", "Deviated")
    assert (status["attempt"], status["restarts"], status["result"]["exact"]) == (2, 0, False)


def test_a_job_deleted_mid_run_leaves_its_checkpoints_alone_and_its_successor_meets_nothing_of_it(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    name = "life-delete"
    # Ranks that are asked to stop wait for their service as long as they may; here it is gone for good.
    grace: dict[str, Any] = {"consumers.template.spec.terminationGracePeriodSeconds": 20}
    with applied(kubectl, drill(name, **grace)) as job:
        job.wait_for_step(3)
        old = uid_of(kubectl, name)
        assert len(children(kubectl, old)) > 8
        kubectl.run("delete", "dtj", name, "--wait=true", "--timeout=60s")
        # At once, while pods of the old one still end.
        with applied(kubectl, drill(name)) as successor, pod_history(kubectl, name) as pods:
            new = uid_of(kubectl, name)
            assert new != old
            gone(kubectl, old, but=(CHECKPOINTS,))
            (kept,) = children(kubectl, old)
            status = successor.complete(300)
            assert (status["attempt"], status["storeEpoch"], status["incidents"]) == (1, 1, [])
            claims = {pod["spec"]["volumes"][0]["name"] for _, pod in pods.versions() if is_of(pod, new)}
            assert claims, "the successor had no pods"
            mounted = {
                volume["persistentVolumeClaim"]["claimName"]
                for _, pod in pods.versions()
                if is_of(pod, new)
                for volume in pod["spec"]["volumes"]
                if "persistentVolumeClaim" in volume
            }
            assert kept.partition("/")[2] not in mounted
    assert status["result"]["weightsSha256"] == undisturbed(quick())


def is_of(pod: dict[str, Any], job_uid: str) -> bool:
    """The pod belongs to the job of that UID."""
    return bool(pod["metadata"]["labels"]["eyas.dev/job-uid"] == job_uid)


def test_hazard_28_a_job_is_deleted_when_its_time_to_live_is_over_and_its_draft_stays(kubectl: Kubectl) -> None:
    name = "life-ttl"
    with applied(kubectl, drill(name, seconds=0, ttlSecondsAfterFinished=5)) as job:
        job.complete(300)
        uid = uid_of(kubectl, name)
        wait_until("the job is gone", lambda: forgotten(kubectl, "dtj", name))
        gone(kubectl, uid, but=(CHECKPOINTS,))
        assert len(children(kubectl, uid)) == 1, "the draft went with the job"


def test_a_job_fails_when_its_active_deadline_is_over(kubectl: Kubectl) -> None:
    name = "life-deadline"
    with applied(kubectl, drill(name, seconds=1, activeDeadlineSeconds=15)) as job:
        verdict = failed(job)
        assert (verdict["reason"], verdict["message"]) == ("DeadlineExceeded", "the job ran for 15 seconds")
        assert_stopped(kubectl, name)


def test_a_job_fails_when_no_step_is_made_before_its_startup_deadline(kubectl: Kubectl) -> None:
    name = "life-startup"
    with applied(kubectl, drill(name, seconds=60, startupDeadlineSeconds=15)) as job:
        verdict = failed(job)
        assert verdict["reason"] == "StartupDeadlineExceeded"
        assert verdict["message"].startswith("no step in 15 seconds")
        assert_stopped(kubectl, name)


def assert_stopped(kubectl: Kubectl, name: str) -> None:
    """A failed job keeps no pod, and its checkpoints."""
    uid = uid_of(kubectl, name)
    wait_until("no pod is left", lambda: not [it for it in children(kubectl, uid) if it.startswith("Pod/")])
    assert any(it.endswith("-checkpoints") for it in children(kubectl, uid))
