"""Restart budget and backoff: without progress they end a job, with progress they never do."""

import pytest

from eyas_operator import names
from eyas_operator.api.pools import Backoff
from eyas_operator.errors import Refused
from eyas_operator.policies.budget import pause_seconds
from eyas_operator.world import Manifest
from support.model_cluster import ModelCluster
from support.operator_world import a_body, a_report


def serial_of(cluster: ModelCluster, role: str, index: int = 0) -> int:
    return next(unit.serial for unit in cluster.status.units if (unit.role, unit.index) == (role, index))


def crash_producer(cluster: ModelCluster, *, code: int = 1, reason: str = "Error", message: str = "") -> None:
    cluster.end(f"producer-0-o{serial_of(cluster, 'producer')}", code, reason=reason, message=message)
    cluster.reconcile()
    cluster.now += 61
    cluster.passes(2)


@pytest.mark.parametrize(
    ("before", "seconds"), [(0, 0.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (99, 10.0), (10_000, 10.0)]
)
def test_first_restart_is_immediate_and_later_ones_wait_longer(before: int, seconds: float) -> None:
    assert pause_seconds(Backoff(base_seconds=2, max_seconds=10), before) == seconds


def test_second_crash_waits_for_its_backoff() -> None:
    cluster = ModelCluster().started()
    cluster.end("producer-0-o1", 1)
    cluster.passes(2, seconds=0.1)
    assert "producer-0-o2" in cluster.names_of("producer")
    cluster.end("producer-0-o2", 1)
    outcome = cluster.reconcile()
    assert "producer-0-o3" not in cluster.names_of("producer")
    cluster.kubelet()
    assert cluster.reconcile().wake_seconds <= 1.01
    assert outcome.wake_seconds <= 1.01
    cluster.now += 1.01
    cluster.reconcile()
    assert "producer-0-o3" in cluster.names_of("producer")


def test_budget_fails_the_job_after_exactly_its_restarts() -> None:
    cluster = ModelCluster(a_body(recovery={"maxRestartsWithoutProgress": 3})).started()
    for _ in range(3):
        crash_producer(cluster, message="boom")
    assert cluster.verdict("Failed")[0] == "False"
    cluster.end(f"producer-0-o{serial_of(cluster, 'producer')}", 1, message="boom")
    cluster.reconcile()
    assert cluster.verdict("Failed") == ("True", "RestartBudgetExhausted")
    failed = next(condition for condition in cluster.status.conditions if condition.type == "Failed")
    assert "producer-0 failed 4 times without progress" in failed.message
    assert "Crash: exit code 1 (Error): boom" in failed.message


def test_hazard_09_suspect_prompts_are_named_when_producers_exhaust_the_budget() -> None:
    cluster = ModelCluster(a_body(recovery={"maxRestartsWithoutProgress": 0})).started()
    cluster.report = a_report(acked_step=1, samples_committed=16, suspects=("s-000000000042",))
    cluster.end("producer-0-o1", 139)
    cluster.reconcile()
    failed = next(condition for condition in cluster.status.conditions if condition.type == "Failed")
    assert "s-000000000042" in failed.message


@pytest.mark.parametrize("code", [75, 143])
def test_uncounted_restarts_never_exhaust_the_budget_but_wait(code: int) -> None:
    cluster = ModelCluster(a_body(recovery={"maxRestartsWithoutProgress": 1})).started()
    for _ in range(6):
        crash_producer(cluster, code=code)
    assert cluster.verdict("Failed")[0] == "False"
    unit = next(unit for unit in cluster.status.units if unit.role == "producer" and unit.index == 0)
    assert unit.restarts_without_progress == 0
    assert unit.pauses_without_progress == 6


def test_durable_step_resets_count_and_backoff() -> None:
    cluster = ModelCluster(a_body(recovery={"maxRestartsWithoutProgress": 1})).started()
    for step in range(1, 6):
        cluster.end(f"consumer-0-a{cluster.status.attempt}", 1)
        cluster.passes(2, seconds=0.1)
        assert f"consumer-0-a{cluster.status.attempt}" in cluster.names_of("consumer"), "the restart is immediate"
        cluster.report = a_report(
            acked_step=step, durable_step=step, samples_committed=16, attempt=cluster.status.attempt
        )
        cluster.passes(1)
    assert cluster.verdict("Failed")[0] == "False"


def test_captured_samples_are_no_progress_of_the_gang() -> None:
    cluster = ModelCluster(a_body(recovery={"maxRestartsWithoutProgress": 1})).started()
    for committed in (20, 30):
        cluster.end(f"consumer-0-a{cluster.status.attempt}", 1)
        cluster.passes(2)
        cluster.report = a_report(acked_step=1, samples_committed=committed, attempt=cluster.status.attempt)
        cluster.now += 61
        cluster.passes(2)
    assert cluster.verdict("Failed") == ("True", "RestartBudgetExhausted")


def test_two_out_of_memory_kills_without_progress_fail_the_job() -> None:
    cluster = ModelCluster().started()
    crash_producer(cluster, code=137, reason="OOMKilled")
    assert cluster.verdict("Failed")[0] == "False"
    crash_producer(cluster, code=137, reason="OOMKilled")
    assert cluster.verdict("Failed") == ("True", "OutOfMemory")


def test_a_number_that_was_skipped_because_its_pods_were_refused_is_no_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = ModelCluster().started()
    create, quota = cluster.create, True

    async def refused(manifest: Manifest) -> None:
        if quota and manifest["metadata"]["labels"].get(names.LABEL_ROLE) == "consumer":
            raise Refused("exceeded quota")
        await create(manifest)

    monkeypatch.setattr(cluster, "create", refused)
    cluster.end("consumer-0-a1", 1)
    cluster.passes(20, seconds=30)
    assert cluster.status.attempt > 5
    assert cluster.status.restarts == 1, "as many as there are incidents"
    assert [incident.serial for incident in cluster.status.incidents] == [1]
    quota = False
    cluster.passes(4, seconds=61)
    assert cluster.names_of("consumer")
    assert cluster.verdict("Failed")[0] == "False"


@pytest.mark.parametrize("hostname", ["producer-0-o1", "consumer-1-a1", "metadata-e1-o1", "store-node-0-o1"])
def test_configuration_error_of_any_role_fails_at_once_with_its_sentence(hostname: str) -> None:
    cluster = ModelCluster().started()
    message = '{"exit_code":78,"klass":"UserError","message":"the tokenizer changed"}'
    cluster.end(hostname, 78, message=message)
    cluster.reconcile()
    assert cluster.verdict("Failed") == ("True", "ConfigError")
    failed = next(condition for condition in cluster.status.conditions if condition.type == "Failed")
    assert "the tokenizer changed" in failed.message


def test_reason_that_a_rank_finds_is_the_same_whoever_tells_it_first() -> None:
    cluster = ModelCluster().started()
    cluster.reachable = False
    message = '{"exit_code":78,"klass":"CheckpointsLost","message":"CheckpointsLost: step 8 was committed"}'
    cluster.end("consumer-0-a1", 78, message=message)
    cluster.reconcile()
    assert cluster.verdict("Failed") == ("True", "CheckpointsLost")
