"""Bugs that recur in operators of training jobs, each as a scenario that must not happen here."""

from typing import Any, cast

from eyas_contract.states import Phase
from eyas_operator.api.crd import status_schema
from eyas_operator.status import CONDITIONS
from support.model_cluster import ModelCluster
from support.operator_world import a_body, a_report


def test_failure_is_seen_although_the_pod_was_replaced_before_anybody_looked() -> None:
    cluster = ModelCluster().started()
    cluster.vanish("consumer-0-a1")
    cluster.vanish("consumer-1-a1")
    cluster.reconcile()
    assert cluster.status.attempt == 2
    assert cluster.status.restarts == 1


def test_first_member_that_ends_is_enough() -> None:
    cluster = ModelCluster().started()
    cluster.end("consumer-1-a1", 1)
    cluster.reconcile()
    assert cluster.status.attempt == 2, "the other member, which still runs, is not waited for"


def test_conditions_that_somebody_else_wrote_stop_nothing_and_lose_none_of_ours() -> None:
    cluster = ModelCluster().started()
    crd = cast("dict[str, Any]", status_schema()["properties"])["conditions"]["items"]
    # The least that the API server takes.
    theirs = dict.fromkeys(crd["required"], "Nosy") | {"status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    for conditions in ([theirs], [*cluster.stored["conditions"], theirs]):
        cluster.stored = cluster.stored | {"conditions": conditions}
        cluster.reconcile()
        assert [it["type"] for it in cluster.stored["conditions"]] == list(CONDITIONS)
        assert cluster.verdict("Ready") == ("True", "AllReady")


def test_finished_job_never_starts_again_when_its_children_are_collected() -> None:
    cluster = ModelCluster().started()
    cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100)
    cluster.passes(5)
    cluster.things.clear()
    cluster.report = None
    made = set(cluster.ever)
    cluster.edit(producers={"replicas": 5})
    cluster.passes(5)
    assert cluster.ever == made
    assert cluster.verdict("Complete")[0] == "True"
    assert cluster.verdict("Failed")[0] == "False"


def test_failed_job_never_becomes_complete() -> None:
    cluster = ModelCluster().started()
    cluster.end("producer-0-o1", 78)
    cluster.reconcile()
    cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100)
    cluster.passes(4)
    assert cluster.verdict("Failed")[0] == "True"
    assert cluster.verdict("Complete")[0] == "False"


def test_a_configuration_that_somebody_deleted_comes_back_before_a_pod_needs_it() -> None:
    cluster = ModelCluster().started()
    made = set(cluster.names_of("consumer"))
    (key,) = [key for key in cluster.things if key[0] == "ConfigMap"]
    text = cluster.things.pop(key).manifest["data"]
    cluster.reconcile()
    assert cluster.things[key].manifest["data"] == text
    assert set(cluster.names_of("consumer")) == made


def test_stuck_terminating_pods_block_no_restart() -> None:
    cluster = ModelCluster().started()
    for name in ("consumer-0-a1", "consumer-1-a1"):
        cluster.pod(name).node = "unreachable"
    cluster.condition("consumer-0-a1", "DisruptionTarget", "True", "DeletionByTaintManager")
    cluster.reconcile()
    assert {"consumer-0-a2", "consumer-1-a2"} <= set(cluster.names_of("consumer"))
    cluster.passes(4)
    assert cluster.status.attempt == 2


def test_ready_counts_only_pods_of_the_present_numbers() -> None:
    cluster = ModelCluster().started()
    for name in ("consumer-0-a1", "consumer-1-a1"):
        cluster.pod(name).node = "unreachable"
    cluster.condition("consumer-1-a1", "DisruptionTarget", "True", "DeletionByTaintManager")
    cluster.reconcile()
    for name in ("consumer-0-a2", "consumer-1-a2"):
        cluster.pod(name).status = {"phase": "Pending", "stuck": True}
    cluster.passes(2)
    assert cluster.verdict("ConsumersReady") == ("False", "PodsWaiting")
    row = next(role for role in cluster.status.roles if role.name == "consumer")
    assert (row.desired, row.ready) == (2, 0)


def test_old_attempt_that_comes_back_to_life_is_deleted_and_changes_nothing() -> None:
    cluster = ModelCluster().started()
    cluster.pod("consumer-0-a1").node = "unreachable"
    cluster.end("consumer-1-a1", 1)
    cluster.passes(3)
    cluster.pod("consumer-0-a1").deleted = ""
    cluster.pod("consumer-0-a1").node = "node-1"
    cluster.passes(3)
    assert cluster.status.attempt == 2
    assert cluster.names_of("consumer") == ["consumer-0-a2", "consumer-1-a2"]


def test_image_pulls_and_unschedulable_pods_are_waiting_not_failures() -> None:
    cluster = ModelCluster()
    cluster.passes(2)
    for name, reason in (("producer-0-o1", "ImagePullBackOff"), ("producer-1-o1", "CreateContainerConfigError")):
        waiting = {"name": "main", "state": {"waiting": {"reason": reason}}}
        cluster.pod(name).status = {"phase": "Pending", "stuck": True, "containerStatuses": [waiting]}
    cluster.pod("consumer-0-a1").status = {"phase": "Pending", "stuck": True}
    cluster.condition("consumer-0-a1", "PodScheduled", "False", "Unschedulable", "0/3 nodes have a GPU")
    cluster.passes(5)
    assert cluster.status.restarts == 0
    assert cluster.verdict("ProducersReady") == ("False", "PodsWaiting")
    found = next(condition for condition in cluster.status.conditions if condition.type == "ConsumersReady")
    assert "Unschedulable 0/3 nodes have a GPU" in found.message


def test_failed_job_holds_no_pod() -> None:
    cluster = ModelCluster(a_body(recovery={"maxRestartsWithoutProgress": 0})).started()
    cluster.end("consumer-0-a1", 1)
    cluster.passes(3)
    assert cluster.verdict("Failed") == ("True", "RestartBudgetExhausted")
    assert not [thing for thing in cluster.things.values() if thing.kind == "Pod"]


def test_whole_gang_is_made_in_one_pass() -> None:
    cluster = ModelCluster(a_body(consumers={"replicas": 4, "processesPerPod": 1}))
    cluster.reconcile()
    assert len(cluster.names_of("consumer")) == 4


def test_conditions_are_complete_from_the_first_visit_and_flip_times_only_on_a_flip() -> None:
    cluster = ModelCluster()
    cluster.reconcile()
    first = {condition.type: condition for condition in cluster.status.conditions}
    assert len(first) == 11
    for condition in first.values():
        assert condition.reason
        assert condition.last_transition_time
        assert condition.observed_generation == 1
    cluster.passes(4)
    cluster.report = a_report(acked_step=1)
    cluster.passes(2)
    for condition in cluster.status.conditions:
        moved = condition.last_transition_time != first[condition.type].last_transition_time
        assert moved == (condition.status != first[condition.type].status), condition.type


def test_fast_numbers_are_written_seldom_and_with_any_other_change() -> None:
    cluster = ModelCluster().started()
    cluster.now += 20
    writes = cluster.version
    for step in range(2, 12):
        cluster.report = a_report(acked_step=step, samples_committed=16 + step)
        cluster.reconcile()
        cluster.now += 1
    assert cluster.version - writes == 1
    cluster.report = a_report(acked_step=50, samples_committed=90)
    cluster.end("producer-0-o1", 1)
    cluster.reconcile()
    assert cluster.status.progress.step == 50


def test_exact_stays_false_once_it_was_false() -> None:
    cluster = ModelCluster().started()
    assert cluster.verdict("Exact")[0] == "True"
    cluster.report = a_report(acked_step=2, exact=False, inexact_reasons=("captureDrift: 1 sample",))
    cluster.passes(1)
    assert cluster.verdict("Exact") == ("False", "Deviated")
    cluster.report = a_report(acked_step=3)
    cluster.passes(1)
    found = next(condition for condition in cluster.status.conditions if condition.type == "Exact")
    assert (found.status, found.message) == ("False", "captureDrift: 1 sample")


def test_job_that_does_not_advance_is_stalled_by_counters() -> None:
    cluster = ModelCluster().started()
    cluster.report = a_report(acked_step=1, seconds_since_advance=301.0, paused="store full")
    cluster.passes(1)
    assert cluster.verdict("Stalled") == ("True", "NoProgress")
    assert any(event.reason == "TrainingStalled" for event in cluster.events)
    cluster.report = a_report(acked_step=2, seconds_since_advance=0.0)
    cluster.passes(1)
    assert cluster.verdict("Stalled") == ("False", "Advancing")
