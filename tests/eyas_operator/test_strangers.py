"""Objects that are not this job's are never touched; objects that are its own but unknown are cleared away."""

import itertools

import msgspec

from eyas_operator import names
from eyas_operator.api.status import Stage
from eyas_operator.names import PodIdentity, Role
from eyas_operator.observe import metadata_pod
from eyas_operator.world import Children, Metadata, OwnerReference, Pod
from support.foreign import add_foreign_objects, foreign_objects
from support.model_cluster import ModelCluster, Thing
from support.operator_world import JOB, OTHER_UID, UID, a_report


def test_children_of_a_namesake_survive_the_whole_life_of_the_job() -> None:
    cluster = ModelCluster()
    add_foreign_objects(cluster)
    before = foreign_objects(cluster)
    cluster.started()
    cluster.end("consumer-0-a1", 1)
    cluster.passes(3)
    cluster.report = a_report(phase="Complete", acked_step=100, durable_step=100)
    cluster.passes(5)
    assert cluster.status.stage is Stage.ENDED
    assert foreign_objects(cluster) == before


def test_claim_of_an_older_epoch_goes_only_if_it_is_owned() -> None:
    cluster = ModelCluster()
    add_foreign_objects(cluster)
    before = foreign_objects(cluster)
    cluster.started()
    cluster.things[("PersistentVolumeClaim", "demo-1c9e0b52-metadata-e1")].uid = "another"
    cluster.passes(4)
    assert cluster.status.store_epoch == 2
    assert ("PersistentVolumeClaim", "demo-1c9e0b52-metadata-e1") not in cluster.things
    assert foreign_objects(cluster) == before


def test_own_pod_with_labels_that_nobody_wrote_is_deleted() -> None:
    cluster = ModelCluster().started()
    labels = names.job_labels(JOB) | {names.LABEL_ROLE: "king"}
    meta = {"name": "odd", "labels": labels, "ownerReferences": [{"uid": UID, "controller": True}]}
    manifest = {"kind": "Pod", "metadata": meta, "spec": {"hostname": "odd"}}
    cluster.things[("Pod", "odd")] = Thing(kind="Pod", manifest=manifest, uid="odd", status={"phase": "Running"})
    cluster.passes(2)
    assert ("Pod", "odd") not in cluster.things


def test_pod_of_another_owner_under_our_labels_is_not_counted() -> None:
    cluster = ModelCluster().started()
    identity = PodIdentity(role=Role.CONSUMER, index=0, serial=50)
    labels = names.pod_labels(JOB, identity)
    meta = {"name": "borrowed", "labels": labels, "ownerReferences": [{"uid": OTHER_UID, "controller": True}]}
    manifest = {"kind": "Pod", "metadata": meta, "spec": {"hostname": "borrowed"}}
    cluster.things[("Pod", "borrowed")] = Thing(kind="Pod", manifest=manifest, uid="b", status={"phase": "Failed"})
    cluster.end("consumer-0-a1", 1)
    cluster.passes(3)
    assert cluster.status.attempt == 2, "a stranger's number means nothing"


def test_metadata_pod_of_the_newest_epoch_and_number_is_the_only_one_that_is_asked() -> None:
    def pod(epoch: int, serial: int, owner: str = UID, role: Role = Role.METADATA) -> Pod:
        identity = PodIdentity(role=role, index=0, serial=serial, store_epoch=epoch)
        return Pod(
            metadata=Metadata(
                name=f"e{epoch}-o{serial}",
                uid=f"e{epoch}-o{serial}",
                labels=names.pod_labels(JOB, identity),
                owner_references=(OwnerReference(uid=owner, controller=True),),
            )
        )

    others = (pod(9, 9, owner=OTHER_UID), pod(0, 9, role=Role.PRODUCER))
    for mine in itertools.permutations((pod(1, 8), pod(2, 3), pod(2, 4))):
        found = metadata_pod(JOB, Children(pods=(*others, *mine)))
        assert found is not None
        assert found.metadata.name == "e2-o4"
    assert metadata_pod(JOB, Children(pods=others)) is None


def test_name_taken_by_somebody_else_stops_the_pass_and_nothing_is_deleted() -> None:
    cluster = ModelCluster().started()
    name = f"{JOB.stem}-producer-0-o2"
    meta = {"name": name, "labels": {}, "ownerReferences": []}
    cluster.things[("Pod", name)] = Thing(kind="Pod", manifest={"kind": "Pod", "metadata": meta}, uid="s")
    cluster.end("producer-0-o1", 1)
    outcome = cluster.reconcile()
    assert outcome.error.startswith("refused")
    assert ("Pod", name) in cluster.things
    cluster.now += 70
    cluster.passes(3)
    assert "producer-0-o3" in cluster.names_of("producer"), "the next ordinal is free"


def test_job_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    cluster = ModelCluster().started()
    original = cluster.read_job

    async def deleting(namespace: str, name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
        record = await original(namespace, name)
        assert record is not None
        return msgspec.structs.replace(record, deleting=True)

    cluster.read_job = deleting  # type: ignore[method-assign]
    cluster.end("producer-0-o1", 1)
    before = cluster.writes
    cluster.passes(3)
    assert cluster.writes == before
