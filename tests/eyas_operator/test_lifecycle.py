"""Suspend, resume, deadlines, the end and what comes after it."""

import pytest

from eyas_contract.states import Gang, Phase
from support.model_cluster import ModelCluster
from support.operator_world import a_body, a_report


def pods(cluster: ModelCluster) -> list[str]:
    return sorted(thing.manifest["spec"]["hostname"] for thing in cluster.things.values() if thing.kind == "Pod")


def test_suspend_stops_training_first_then_the_rest_and_resume_uses_new_numbers() -> None:
    cluster = ModelCluster().started()
    cluster.edit(suspend=True)
    cluster.reconcile()
    assert ("demo-1c9e0b52-consumer-0-a1", 120) in cluster.deletes
    assert not any("metadata" in name for name, _ in cluster.deletes), "the drain needs the service"
    cluster.passes(4)
    assert pods(cluster) == []
    assert ("demo-1c9e0b52-store-node-0-o1", 1) in cluster.deletes, "nobody is left who could take its objects"
    assert cluster.verdict("Suspended") == ("True", "JobSuspended")
    before = cluster.writes
    cluster.passes(2)
    assert cluster.writes == before
    cluster.edit(suspend=False)
    cluster.passes(4)
    assert pods(cluster) == [
        "consumer-0-a2", "consumer-1-a2", "metadata-e1-o2", "producer-0-o2", "producer-1-o2", "store-master-o2",
        "store-node-0-o2",
    ]  # fmt: skip
    assert cluster.status.restarts == 0


def test_job_created_suspended_makes_nothing() -> None:
    cluster = ModelCluster(a_body(suspend=True))
    cluster.passes(3)
    assert cluster.things == {}
    assert cluster.verdict("Suspended")[0] == "True"
    cluster.edit(suspend=False)
    cluster.passes(4)
    assert "consumer-0-a1" in pods(cluster)


def test_suspension_does_not_wait_for_a_pod_that_cannot_stop() -> None:
    cluster = ModelCluster().started()
    cluster.pod("producer-0-o1").node = "unreachable"
    cluster.edit(suspend=True)
    cluster.passes(3)
    assert cluster.verdict("Suspended")[0] == "False"
    cluster.now += 200
    cluster.passes(2)
    assert cluster.verdict("Suspended")[0] == "True"


def test_active_deadline_fails_the_job() -> None:
    cluster = ModelCluster(a_body(activeDeadlineSeconds=60)).started()
    cluster.now += 60
    cluster.passes(2)
    assert cluster.verdict("Failed") == ("True", "DeadlineExceeded")
    assert pods(cluster) == []


def test_startup_deadline_says_what_is_waited_for() -> None:
    cluster = ModelCluster(a_body(startupDeadlineSeconds=100))
    cluster.passes(3)
    cluster.pod("consumer-0-a1").status = {
        "phase": "Pending",
        "stuck": True,
        "containerStatuses": [
            {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no tag"}}}
        ],
    }
    cluster.now += 100
    cluster.reconcile()
    assert cluster.verdict("Failed") == ("True", "StartupDeadlineExceeded")
    failed = next(condition for condition in cluster.status.conditions if condition.type == "Failed")
    assert "ImagePullBackOff no tag" in failed.message


def test_startup_deadline_is_over_with_the_first_step() -> None:
    cluster = ModelCluster(a_body(startupDeadlineSeconds=100)).started()
    cluster.now += 10_000
    cluster.passes(2)
    assert cluster.verdict("Failed")[0] == "False"


def test_startup_deadline_starts_again_at_resumption() -> None:
    cluster = ModelCluster(a_body(startupDeadlineSeconds=100)).started()
    cluster.report = a_report(acked_step=5, durable_step=5, samples_committed=16)
    cluster.passes(1)
    cluster.edit(suspend=True)
    cluster.passes(4)
    cluster.now += 10_000
    cluster.edit(suspend=False)
    cluster.passes(3)
    assert cluster.verdict("Failed")[0] == "False"
    cluster.now += 100
    cluster.reconcile()
    assert cluster.verdict("Failed") == ("True", "StartupDeadlineExceeded")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [("InputsChanged: prompts.jsonl was edited", "InputsChanged"), ("something else", "TrainingFailed")],
)
def test_failure_that_the_service_found_ends_the_job(failure: str, reason: str) -> None:
    cluster = ModelCluster().started()
    cluster.report = a_report(phase=Phase.FAILED, failure=failure)
    cluster.passes(2)
    assert cluster.verdict("Failed") == ("True", reason)
    assert pods(cluster) == []


def test_start_at_zero_after_a_checkpoint_is_a_failure_unless_allowed() -> None:
    for allowed, verdict in ((False, "True"), (True, "False")):
        training = {"windowSize": 8, "checkpoint": {"allowRestartFromZero": allowed}}
        cluster = ModelCluster(a_body(training=training)).started()
        cluster.report = a_report(acked_step=9, durable_step=8, checkpoint_directory="step-8", samples_committed=80)
        cluster.passes(1)
        assert cluster.status.checkpoint.step == 8
        cluster.report = a_report(incarnation="b" * 32, gang=Gang.OPEN, samples_committed=80)
        cluster.passes(1)
        assert cluster.verdict("Failed")[0] == verdict


def test_empty_store_means_nothing_while_a_producer_may_still_put() -> None:
    cluster = ModelCluster().started()
    cluster.pod("producer-0-o1").node = "unreachable"
    cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100)
    cluster.passes(5)
    assert cluster.verdict("Complete")[0] == "False"
    assert "metadata-e1-o1" in pods(cluster)
    cluster.vanish("producer-0-o1")
    cluster.passes(2)
    assert cluster.verdict("Complete") == ("True", "TrainingComplete")


def test_first_reason_of_a_failure_stays() -> None:
    cluster = ModelCluster().started()
    cluster.report = a_report(phase=Phase.FAILED, failure="InputsChanged: prompts.jsonl was edited")
    cluster.end("producer-0-o1", 78)
    cluster.end("consumer-0-a1", 78)
    cluster.passes(2)
    assert cluster.verdict("Failed") == ("True", "InputsChanged")


def test_sweep_that_never_ends_is_bounded_and_said() -> None:
    cluster = ModelCluster().started()
    cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100, resident_objects=1)
    cluster.passes(3)
    assert cluster.verdict("Complete")[0] == "False"
    cluster.now += 1000
    cluster.passes(2)
    assert cluster.verdict("Complete") == ("True", "SweepIncomplete")
    assert pods(cluster) == []


def test_metadata_service_that_dies_during_the_sweep_comes_back_for_it() -> None:
    cluster = ModelCluster().started()
    cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100, resident_objects=1)
    cluster.passes(3)
    cluster.end("metadata-e1-o1", 137)
    cluster.reachable = False
    cluster.passes(3)
    assert "metadata-e1-o2" in pods(cluster)
    cluster.reachable = True
    cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100)
    cluster.passes(2)
    assert cluster.verdict("Complete") == ("True", "TrainingComplete")


def test_time_to_live_deletes_the_job_and_only_then() -> None:
    cluster = ModelCluster(a_body(ttlSecondsAfterFinished=50)).started()
    cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100)
    cluster.passes(4)
    assert cluster.verdict("Complete")[0] == "True"
    assert not cluster.job_deleted
    cluster.now += 50
    cluster.reconcile()
    assert cluster.job_deleted


def test_lost_checkpoint_claim_fails_instead_of_starting_empty() -> None:
    cluster = ModelCluster().started()
    cluster.delete_claim("demo-1c9e0b52-checkpoints")
    cluster.passes(2)
    assert cluster.verdict("Failed") == ("True", "CheckpointsLost")
    assert ("PersistentVolumeClaim", "demo-1c9e0b52-checkpoints") not in cluster.things


def test_shared_directory_claim_goes_at_the_end() -> None:
    cluster = ModelCluster(a_body(store={"backend": "SharedDirectory"})).started()
    assert ("PersistentVolumeClaim", "demo-1c9e0b52-store") in cluster.things
    cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100)
    cluster.passes(5)
    assert ("PersistentVolumeClaim", "demo-1c9e0b52-store") not in cluster.things


def test_invalid_edit_is_a_condition_and_stops_nothing() -> None:
    cluster = ModelCluster().started()
    running = pods(cluster)
    cluster.edit(producers={"replicas": -1})
    cluster.passes(2)
    assert cluster.verdict("Accepted") == ("False", "InvalidSpec")
    assert pods(cluster) == running
    cluster.edit(producers={"replicas": 2})
    cluster.passes(1)
    assert cluster.verdict("Accepted")[0] == "True"


def test_immutable_edit_is_refused_and_heals_when_taken_back() -> None:
    cluster = ModelCluster().started()
    target = cluster.body["spec"]["target"]
    cluster.edit(target=target | {"threads": 2})
    cluster.passes(2)
    assert cluster.verdict("Accepted") == ("False", "ImmutableFieldChanged")
    cluster.end("producer-0-o1", 1)
    cluster.reconcile()
    assert "producer-0-o2" not in pods(cluster)
    cluster.edit(target=target)
    cluster.passes(2)
    assert "producer-0-o2" in pods(cluster)


def test_path_on_no_volume_is_refused_before_any_pod() -> None:
    cluster = ModelCluster(a_body(target={"model": "/home/me/model"}))
    cluster.passes(3)
    assert cluster.verdict("Accepted") == ("False", "InvalidSpec")
    assert pods(cluster) == []
