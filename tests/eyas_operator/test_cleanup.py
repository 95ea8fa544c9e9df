"""Jobs on a pool that others share: held by a finalizer until their features are out of it, or until patience ends.

The model cluster checks that no pod is made before the finalizer is there, and that nothing sweeps beside a writer.
"""

import pytest

from eyas_contract.states import Phase
from eyas_operator import names
from eyas_operator.api.status import Stage
from eyas_operator.policies.cleanup import RETRY_SECONDS
from support.model_cluster import ModelCluster, OperatorDied
from support.operator_world import a_body, a_report

EXTERNAL = {
    "backend": "Mooncake",
    "mooncake": {"external": {"masterAddress": "pool.store:50051", "masterMetricsAddress": "pool.store:9003"}},
}
PATIENCE = 120 + 30 + 300
"""Grace of the consumers, margin, and the spec's sweepSeconds."""


def on_a_shared_pool(**spec: object) -> ModelCluster:
    return ModelCluster(a_body(store=EXTERNAL, **spec))


def sweepers(cluster: ModelCluster) -> list[str]:
    return cluster.names_of("sweeper")


def writers(cluster: ModelCluster) -> list[str]:
    return [name for role in ("producer", "consumer", "metadata") for name in cluster.names_of(role)]


def until_swept(cluster: ModelCluster, passes: int = 30) -> None:
    """Passes until the job is gone; every sweeper that runs finds nothing more."""
    for _ in range(passes):
        cluster.passes(1)
        for name in sweepers(cluster):
            if cluster.pod(name).status.get("phase") == "Running":
                cluster.end(name, 0)
        if cluster.job_deleted:
            return
    raise AssertionError(f"the job is still there: {cluster.status.cleanup}")


@pytest.mark.parametrize(
    ("store", "held"),
    [
        (EXTERNAL, True),
        ({"backend": "Mooncake", "mooncake": {"nodes": {"replicas": 1}}}, False),
        ({"backend": "SharedDirectory"}, False),
    ],
)
def test_only_a_job_on_a_shared_pool_is_held(store: dict[str, object], held: bool) -> None:
    cluster = ModelCluster(a_body(store=store)).started()
    assert cluster.finalizers == ((names.FINALIZER,) if held else ())
    cluster.ask_deletion()
    assert cluster.job_deleted is not held


def test_at_rest_the_finalizer_is_not_written_again() -> None:
    cluster = on_a_shared_pool().started()
    before = cluster.writes
    for _ in range(3):
        cluster.reconcile()
    assert cluster.writes == before


def test_a_job_deleted_in_the_middle_is_swept_after_its_writers_are_gone() -> None:
    cluster = on_a_shared_pool().started()
    cluster.ask_deletion()
    cluster.reconcile()
    assert cluster.status.state == "Deleting"
    assert sweepers(cluster) == [], "its writers have not gone yet"
    cluster.kubelet()
    assert writers(cluster) == []
    cluster.passes(2)
    assert sweepers(cluster) == ["sweeper-o1"]
    before = cluster.writes
    cluster.passes(3)
    assert cluster.writes == before, "nothing is written while it sweeps"
    assert not cluster.job_deleted
    cluster.end("sweeper-o1", 0)
    cluster.passes(1)
    assert cluster.job_deleted
    assert [event.reason for event in cluster.events][-1] == "PoolSwept"


def test_a_job_that_never_started_goes_at_once() -> None:
    cluster = on_a_shared_pool(suspend=True)
    cluster.passes(2)
    assert cluster.finalizers == (names.FINALIZER,)
    cluster.ask_deletion()
    cluster.passes(1)
    assert cluster.job_deleted
    assert sweepers(cluster) == []


def test_a_suspended_job_is_swept_too() -> None:
    cluster = on_a_shared_pool().started()
    cluster.edit(suspend=True)
    cluster.passes(4)
    assert cluster.status.stage is Stage.SUSPENDED
    cluster.ask_deletion()
    until_swept(cluster)
    assert cluster.status.cleanup.outcome == "Swept"


def test_a_complete_job_whose_store_was_seen_empty_is_not_swept_again() -> None:
    cluster = on_a_shared_pool().started()
    cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100, weights_sha256="f" * 64)
    cluster.passes(6)
    assert cluster.verdict("Complete") == ("True", "TrainingComplete")
    assert cluster.finalizers == ()
    assert not [name for name in cluster.ever if "sweeper-o" in name]


@pytest.mark.parametrize("how", ["failed", "store not swept"])
def test_a_job_that_ended_with_features_in_the_pool_is_swept_although_nobody_deletes_it(how: str) -> None:
    cluster = on_a_shared_pool().started()
    if how == "failed":
        cluster.end("producer-0-o1", 78)
        cluster.passes(2)
    else:
        cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100, resident_objects=4)
        cluster.passes(3)
        cluster.now += PATIENCE
        cluster.passes(2)
    assert cluster.status.stage is Stage.ENDED
    conditions = cluster.status.conditions
    cluster.passes(3)
    assert sweepers(cluster) == ["sweeper-o1"]
    cluster.end("sweeper-o1", 0)
    cluster.passes(3)
    assert cluster.finalizers == ()
    assert sweepers(cluster) == []
    assert cluster.status.conditions == conditions
    assert not cluster.job_deleted


def test_a_pool_that_is_away_holds_the_job_no_longer_than_patience() -> None:
    cluster = on_a_shared_pool().started()
    cluster.ask_deletion()
    cluster.passes(3)
    began = cluster.now
    tries = set()
    while not cluster.job_deleted:
        for name in sweepers(cluster):
            tries.add(name)
            if cluster.pod(name).status.get("phase") == "Running":
                cluster.end(name, 75)
        cluster.passes(1, seconds=RETRY_SECONDS)
        assert cluster.now <= began + PATIENCE + 20
    assert cluster.now >= began + PATIENCE - 20
    assert len(tries) > 3
    assert cluster.status.cleanup.outcome == "GivenUp"
    assert cluster.events[-1].reason == "PoolNotSwept"
    assert cluster.events[-1].type == "Warning"


def test_sweepers_that_fail_at_once_do_not_follow_each_other_hot() -> None:
    cluster = on_a_shared_pool().started()
    cluster.ask_deletion()
    cluster.passes(3)
    cluster.end("sweeper-o1", 1)
    cluster.passes(1, seconds=0.0)
    assert [name for name in cluster.ever if name.endswith("sweeper-o2")] == []
    cluster.passes(3, seconds=RETRY_SECONDS)
    assert sweepers(cluster) == ["sweeper-o2"]


def test_a_writer_on_a_lost_node_is_waited_for_and_then_not() -> None:
    cluster = on_a_shared_pool().started()
    cluster.pod("producer-0-o1").node = "unreachable"
    cluster.ask_deletion()
    cluster.passes(3)
    assert sweepers(cluster) == []
    cluster.now += 120 + 30
    cluster.passes(2)
    assert sweepers(cluster) == ["sweeper-o1"]


def test_the_metadata_claim_is_not_needed() -> None:
    cluster = on_a_shared_pool().started()
    cluster.delete_claim("demo-1c9e0b52-metadata-e1")
    cluster.ask_deletion()
    until_swept(cluster)
    assert cluster.status.cleanup.outcome == "Swept"


def test_the_finalizers_of_others_stay() -> None:
    cluster = on_a_shared_pool()
    cluster.finalizers = ("example.com/archive",)
    cluster.started()
    cluster.ask_deletion()
    for _ in range(8):
        cluster.passes(1)
        for name in sweepers(cluster):
            cluster.end(name, 0)
    assert cluster.finalizers == ("example.com/archive",)
    assert not cluster.job_deleted


def test_a_job_whose_spec_is_not_valid_any_more_is_let_go() -> None:
    cluster = on_a_shared_pool().started()
    cluster.edit(producers={"replicas": 0})
    cluster.ask_deletion()
    cluster.passes(1)
    assert cluster.job_deleted


@pytest.mark.parametrize("moment", ["start", "deletion"])
def test_an_operator_that_dies_before_any_write_leaves_nothing_undone(moment: str) -> None:
    for effects in range(60):
        cluster = on_a_shared_pool()
        if moment == "deletion":
            cluster.started()
            cluster.ask_deletion()
        cluster.die_before = effects
        for _ in range(10):
            try:
                cluster.passes(1)
            except OperatorDied:
                continue
        cluster.die_before = -1
        if moment == "start":
            cluster.started()
            cluster.ask_deletion()
        until_swept(cluster)
        assert cluster.status.cleanup.outcome in ("Swept", "NotNeeded")
        assert cluster.status.cleanup.serial > 0


def test_an_expired_job_is_deleted_and_swept() -> None:
    cluster = on_a_shared_pool(ttlSecondsAfterFinished=60).started()
    cluster.end("producer-0-o1", 78)
    cluster.passes(2)
    cluster.now += 100
    until_swept(cluster)
