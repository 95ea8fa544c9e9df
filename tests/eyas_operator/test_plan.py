"""The plan against a model cluster: starts, deaths of every role, ends. The cluster checks the standing promises."""

import pytest

from eyas_contract.states import Phase
from support.model_cluster import ModelCluster
from support.operator_world import a_report


def test_first_start_makes_every_child() -> None:
    cluster = ModelCluster()
    cluster.passes(4)
    assert cluster.names_of("metadata") == ["metadata-e1-o1"]
    assert cluster.names_of("producer") == ["producer-0-o1", "producer-1-o1"]
    assert cluster.names_of("consumer") == ["consumer-0-a1", "consumer-1-a1"]
    assert cluster.names_of("store-master") == ["store-master-o1"]
    assert cluster.names_of("store-node") == ["store-node-0-o1"]
    assert cluster.status.attempt == 1
    assert cluster.verdict("StoreReady") == ("False", "MetadataUnreachable")
    cluster.report = a_report()
    cluster.passes(1)
    assert cluster.verdict("Ready") == ("True", "AllReady")


def test_second_pass_writes_nothing() -> None:
    cluster = ModelCluster().started()
    before = cluster.writes
    for _ in range(3):
        cluster.reconcile()
    assert cluster.writes == before


@pytest.mark.parametrize(
    ("dead", "successor", "role"),
    [
        ("producer-1-o1", "producer-1-o2", "producer"),
        ("metadata-e1-o1", "metadata-e1-o2", "metadata"),
        ("store-master-o1", "store-master-o2", "store-master"),
        ("store-node-0-o1", "store-node-0-o2", "store-node"),
    ],
)
@pytest.mark.parametrize("how", ["crash", "vanish"])
def test_dead_pod_is_replaced_at_once_under_the_next_ordinal(dead: str, successor: str, role: str, how: str) -> None:
    cluster = ModelCluster().started()
    others = set(cluster.names_of("consumer"))
    if how == "crash":
        cluster.end(dead, 1)
    else:
        cluster.vanish(dead)
    cluster.reconcile()
    assert successor in cluster.names_of(role)
    cluster.passes(2)
    assert dead not in cluster.names_of(role)
    assert set(cluster.names_of("consumer")) == others


@pytest.mark.parametrize("how", ["crash", "vanish", "node"])
def test_dead_consumer_restarts_the_whole_gang(how: str) -> None:
    cluster = ModelCluster().started()
    if how == "crash":
        cluster.end("consumer-1-a1", 1)
    elif how == "vanish":
        cluster.vanish("consumer-1-a1")
        cluster.vanish("consumer-0-a1")
    else:
        cluster.condition("consumer-1-a1", "DisruptionTarget", "True", "DeletionByTaintManager")
        cluster.pod("consumer-1-a1").status["phase"] = "Unknown"
    cluster.reconcile()
    assert {"consumer-0-a2", "consumer-1-a2"} <= set(cluster.names_of("consumer"))
    assert cluster.status.attempt == 2
    cluster.passes(2)
    assert "consumer-0-a1" not in cluster.names_of("consumer")
    assert cluster.names_of("producer") == ["producer-0-o1", "producer-1-o1"]


def test_metadata_claim_lost_begins_the_next_epoch() -> None:
    cluster = ModelCluster().started()
    cluster.delete_claim("demo-1c9e0b52-metadata-e1")
    cluster.reconcile()
    assert cluster.status.store_epoch == 2
    assert ("PersistentVolumeClaim", "demo-1c9e0b52-metadata-e2") in cluster.things
    cluster.passes(3)
    assert cluster.names_of("metadata") == ["metadata-e2-o2"]
    service = cluster.things[("Service", "demo-1c9e0b52-metadata")].manifest
    assert service["spec"]["selector"]["eyas.dev/store-epoch"] == "2"
    assert cluster.status.attempt == 1


def test_completion_sweeps_after_producers_and_consumers_are_gone() -> None:
    cluster = ModelCluster().started()
    done = a_report(
        phase=Phase.COMPLETE, acked_step=100, durable_step=100, weights_sha256="f" * 64, resident_objects=3,
        checkpoint_directory="step-000000100.a1.aaaaaaaa", samples_trained=800, samples_evaluated=30,
    )  # fmt: skip
    cluster.report = done
    cluster.passes(3)
    assert cluster.names_of("producer") == []
    assert cluster.names_of("consumer") == []
    assert cluster.names_of("metadata") == ["metadata-e1-o1"]
    assert cluster.verdict("Complete")[0] == "False"
    cluster.report = a_report(
        phase=Phase.COMPLETE, acked_step=100, durable_step=100, weights_sha256="f" * 64,
        samples_trained=800, samples_evaluated=30,
    )  # fmt: skip
    cluster.passes(3)
    assert cluster.verdict("Complete") == ("True", "TrainingComplete")
    assert not [thing for thing in cluster.things.values() if thing.kind == "Pod"]
    result = cluster.status.result
    assert result is not None
    assert result.weights_sha256 == "f" * 64
    assert result.steps == 100
    assert (result.samples_trained, result.samples_evaluated) == (800, 30)
    assert (cluster.status.progress.acked, cluster.status.progress.evaluated) == (800, 30)
