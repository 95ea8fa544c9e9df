"""A gang of several pods needs checkpoints on a volume that several nodes may mount, whoever made the claim."""

import pytest
from tests.support.model_cluster import ModelCluster, Thing
from tests.support.operator_world import a_body

NAMED = {
    "models": {"claimName": "models"},
    "data": {"claimName": "data"},
    "checkpoints": {"claimName": "theirs"},
}


def a_job(*modes: str, consumers: int) -> ModelCluster:
    """A job that names a claim, which somebody made if it has modes."""
    cluster = ModelCluster(a_body(volumes=NAMED, consumers={"replicas": consumers}))
    if modes:
        add(cluster, *modes)
    return cluster


def add(cluster: ModelCluster, *modes: str) -> None:
    manifest = {"metadata": {"name": "theirs"}, "spec": {"accessModes": list(modes)}}
    key = ("PersistentVolumeClaim", "theirs")
    cluster.things[key] = Thing(kind=key[0], manifest=manifest, uid="theirs", status={"phase": "Bound"})


def pods(cluster: ModelCluster) -> list[str]:
    return [name for role in ("metadata", "producer", "consumer") for name in cluster.names_of(role)]


@pytest.mark.parametrize("modes", [("ReadWriteOnce",), ("ReadWriteOncePod",), ("ReadWriteOnce", "ReadOnlyMany")])
def test_gang_on_a_named_claim_for_one_node_is_refused_before_any_pod(modes: tuple[str, ...]) -> None:
    cluster = a_job(*modes, consumers=2)
    cluster.passes(3)
    assert cluster.verdict("Accepted") == ("False", "CheckpointsNotShared")
    assert pods(cluster) == []
    (told,) = [it.message for it in cluster.status.conditions if it.type == "Accepted"]
    assert told == (
        f"spec.volumes.checkpoints.claimName: theirs is {', '.join(modes)}, and 2 consumers need ReadWriteMany; "
        "set spec.consumers.replicas to 1, or make a new job with a claim that has it"
    )


@pytest.mark.parametrize(("modes", "consumers"), [(("ReadWriteOnce",), 1), (("ReadWriteOnce", "ReadWriteMany"), 2)])
def test_claim_that_can_serve_the_gang_is_taken(modes: tuple[str, ...], consumers: int) -> None:
    cluster = a_job(*modes, consumers=consumers)
    cluster.passes(3)
    assert cluster.verdict("Accepted")[0] == "True"
    assert len(cluster.names_of("consumer")) == consumers


def test_claim_that_does_not_exist_yet_is_waited_for_and_judged_when_it_is_there() -> None:
    cluster = a_job(consumers=2)
    cluster.passes(3)
    assert cluster.verdict("Accepted")[0] == "True"
    assert len(cluster.names_of("consumer")) == 2, "their pods say what they wait for"
    add(cluster, "ReadWriteOnce")
    cluster.passes(1)
    assert cluster.verdict("Accepted") == ("False", "CheckpointsNotShared")


@pytest.mark.parametrize("named", [True, False], ids=["named", "made"])
def test_resize_to_a_gang_is_refused_on_a_claim_for_one_node_and_what_trains_goes_on(*, named: bool) -> None:
    cluster = (
        a_job("ReadWriteOnce", consumers=1) if named else ModelCluster(a_body(consumers={"replicas": 1}))
    ).started()
    before = pods(cluster)
    cluster.edit(consumers={"replicas": 2})
    cluster.passes(2)
    assert cluster.verdict("Accepted") == ("False", "CheckpointsNotShared")
    assert pods(cluster) == before
    cluster.edit(consumers={"replicas": 1})
    cluster.passes(1)
    assert cluster.verdict("Accepted")[0] == "True"
    assert pods(cluster) == before


def test_folder_that_has_no_modes_is_shared_by_nature() -> None:
    cluster = a_job(consumers=2)
    add(cluster)
    cluster.passes(3)
    assert cluster.verdict("Accepted")[0] == "True"
