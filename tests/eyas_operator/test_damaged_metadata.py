"""A damaged metadata database is a lost one whose file is kept: one new epoch, one incident, nothing counted."""

import pytest

from eyas_contract.wire import Termination, encode
from eyas_operator.api.incidents import INCIDENT_MESSAGE_CHARACTERS_MAX
from eyas_operator.api.status import Unit
from eyas_operator.policies.epochs import DAMAGED_MAX
from support.model_cluster import ModelCluster, OperatorDied
from support.operator_world import a_body, a_report

STEM = "demo-1c9e0b52"
SENTENCE = "the metadata database /eyas/metadata/metadata.sqlite is damaged (file is not a database)"


def claims(cluster: ModelCluster) -> set[str]:
    names = [name for kind, name in cluster.things if kind == "PersistentVolumeClaim" and "metadata" in name]
    return {name.removeprefix(f"{STEM}-metadata-") for name in names}


def told(code: int, klass: str, sentence: str) -> str:
    return encode(Termination(exit_code=code, klass=klass, message=sentence)).decode()


def damaged(cluster: ModelCluster, sentence: str = SENTENCE) -> None:
    """The present metadata pod ends as its service does when it meets damage."""
    (hostname,) = cluster.names_of("metadata")
    cluster.end(hostname, 65, message=told(65, "Damaged", sentence))


def recovered(cluster: ModelCluster) -> None:
    """The service of the new epoch answers, and a step beyond the checkpoint is trained."""
    epoch = cluster.status.store_epoch
    cluster.report = a_report(store_epoch=epoch, acked_step=20, durable_step=20, samples_committed=0)
    cluster.passes(2)
    cluster.report = a_report(store_epoch=epoch, acked_step=21, durable_step=20, samples_committed=8)
    cluster.passes(2)


def unit(cluster: ModelCluster) -> Unit:
    return next(unit for unit in cluster.status.units if unit.role == "metadata")


def test_damage_begins_exactly_one_new_epoch_and_keeps_the_damaged_claim() -> None:
    cluster = ModelCluster().started()
    damaged(cluster)
    cluster.passes(6)
    assert cluster.status.store_epoch == 2
    assert claims(cluster) == {"e1", "e2"}
    assert cluster.names_of("metadata") == ["metadata-e2-o2"]
    recovered(cluster)
    cluster.passes(3, seconds=100)
    assert claims(cluster) == {"e1", "e2"}
    assert cluster.status.store_epoch == 2
    assert cluster.status.attempt == 1, "the ranks stay in their pods"


def test_the_epoch_is_in_the_status_before_its_claim_is_made() -> None:
    cluster = ModelCluster().started()
    damaged(cluster)
    cluster.die_before = 1
    with pytest.raises(OperatorDied):
        cluster.reconcile()
    assert cluster.status.store_epoch == 2
    assert claims(cluster) == {"e1"}
    cluster.passes(4)
    assert cluster.status.store_epoch == 2, "the dead pod of the old epoch tells nothing twice"
    assert claims(cluster) == {"e1", "e2"}


def test_a_damaged_pod_that_cannot_be_deleted_begins_no_second_epoch() -> None:
    cluster = ModelCluster().started()
    cluster.pod("metadata-e1-o1").node = "unreachable"
    damaged(cluster)
    cluster.passes(6, seconds=30)
    assert cluster.status.store_epoch == 2
    assert "metadata-e1-o1" in cluster.names_of("metadata")


def test_one_incident_tells_the_cause_and_what_was_done() -> None:
    cluster = ModelCluster().started()
    damaged(cluster)
    cluster.passes(3)
    (incident,) = cluster.status.incidents
    assert (incident.klass, incident.unit, incident.source) == ("MetadataDamaged", "metadata", "Operator")
    assert not incident.counted
    assert incident.message.startswith(SENTENCE)
    assert f"in claim {STEM}-metadata-e1; store epoch 2 begins" in incident.message
    recovered(cluster)
    (incident,) = cluster.status.incidents
    assert incident.outcome == "Recovered"
    reasons = [event.reason for event in cluster.events if event.reason.startswith("Metadata")]
    assert reasons == ["MetadataDamaged"]


def test_what_was_done_is_told_however_long_the_cause_is() -> None:
    cluster = ModelCluster().started()
    damaged(cluster, "x" * 900)
    cluster.passes(2)
    message = cluster.status.incidents[-1].message
    assert len(message) <= INCIDENT_MESSAGE_CHARACTERS_MAX
    assert message.endswith("the job goes on from its newest checkpoint")


def test_damage_is_not_counted_but_paced() -> None:
    cluster = ModelCluster(a_body(recovery={"maxRestartsWithoutProgress": 1})).started()
    for epoch in (2, 3, 4):
        damaged(cluster)
        cluster.passes(6, seconds=70)
        assert cluster.status.store_epoch == epoch
    assert unit(cluster).restarts_without_progress == 0
    assert cluster.verdict("Failed")[0] == "False"
    damaged(cluster)
    cluster.reconcile()
    assert unit(cluster).not_before_time, "a volume that is damaged again and again is not tried in a hot loop"
    cluster.passes(3, seconds=70)
    assert claims(cluster) == {"e1", "e2", "e3", "e4", "e5"}


def test_volumes_that_are_always_damaged_end_the_job_with_every_claim_kept() -> None:
    cluster = ModelCluster().started()
    for _ in range(DAMAGED_MAX + 1):
        damaged(cluster)
        cluster.passes(4, seconds=70)
    assert cluster.verdict("Failed") == ("True", "MetadataDamaged")
    assert len(claims(cluster)) == DAMAGED_MAX + 1
    assert cluster.names_of("metadata") == []


def test_a_claim_lost_after_a_damage_keeps_the_damaged_one() -> None:
    cluster = ModelCluster().started()
    damaged(cluster)
    cluster.passes(6)
    cluster.delete_claim(f"{STEM}-metadata-e2")
    cluster.passes(6)
    assert claims(cluster) == {"e1", "e3"}


def test_ends_that_may_heal_begin_no_epoch() -> None:
    cluster = ModelCluster(a_body(recovery={"maxRestartsWithoutProgress": 20})).started()
    for code, klass in ((1, "Bug"), (75, "Transient"), (75, "FileGone"), (137, "Crash"), (1, "Corrupt")):
        (hostname,) = cluster.names_of("metadata")
        cluster.end(hostname, code, message=told(code, klass, "disk I/O error"))
        cluster.passes(4, seconds=70)
    assert cluster.status.store_epoch == 1
    assert claims(cluster) == {"e1"}
