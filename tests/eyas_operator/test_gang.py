"""The consumer gang: drain, resize, fencing, early exits."""

from eyas_contract.states import Phase
from eyas_contract.wire import KILLED_WITH_GANG, Termination, encode
from eyas_operator.policies.gang import CULPRIT_SECONDS
from support.model_cluster import ModelCluster
from support.operator_world import a_body, a_report


def test_temporary_exit_of_one_member_lets_the_others_checkpoint() -> None:
    cluster = ModelCluster().started()
    cluster.end("consumer-1-a1", 75)
    cluster.reconcile()
    assert cluster.status.attempt == 1, "the others are still writing"
    assert ("demo-1c9e0b52-consumer-0-a1", 120) in cluster.deletes, "asked to stop, with the full grace period"
    assert "consumer-0-a2" not in cluster.names_of("consumer")
    cluster.kubelet()
    cluster.reconcile()
    assert cluster.status.attempt == 2
    assert {"consumer-0-a2", "consumer-1-a2"} <= set(cluster.names_of("consumer"))
    unit = next(unit for unit in cluster.status.units if unit.role == "consumer")
    assert unit.restarts_without_progress == 0


def test_evicted_member_drains_the_gang() -> None:
    cluster = ModelCluster().started()
    cluster.pod("consumer-0-a1").deleted = "2030-01-01T00:00:00Z"
    cluster.pod("consumer-0-a1").node = "unreachable"
    cluster.reconcile()
    assert cluster.status.gang.draining_reason == "PodDeleted"
    cluster.passes(3)
    assert cluster.status.attempt == 1, "the evicted member may still write its shards"
    cluster.vanish("consumer-0-a1")
    cluster.passes(2)
    assert cluster.status.attempt == 2


def test_member_that_cannot_stop_is_not_waited_for_beyond_its_grace() -> None:
    cluster = ModelCluster().started()
    cluster.pod("consumer-0-a1").node = "unreachable"
    cluster.end("consumer-1-a1", 75)
    cluster.passes(3)
    assert cluster.status.attempt == 1
    cluster.now += 151
    cluster.reconcile()
    assert cluster.status.attempt == 2
    assert {"consumer-0-a2", "consumer-1-a2"} <= set(cluster.names_of("consumer"))


def test_resize_drains_then_starts_the_new_shape() -> None:
    cluster = ModelCluster().started()
    cluster.edit(consumers={"replicas": 3, "processesPerPod": 2})
    cluster.reconcile()
    assert cluster.status.attempt == 1
    assert ("demo-1c9e0b52-consumer-0-a1", 120) in cluster.deletes
    cluster.passes(3)
    assert cluster.status.attempt == 2
    assert cluster.names_of("consumer") == ["consumer-0-a2", "consumer-1-a2", "consumer-2-a2"]
    config = cluster.things[("ConfigMap", "demo-1c9e0b52-config-e1-a2")].manifest["data"]["job.json"]
    assert '"world_size": 6' in config
    assert cluster.status.incidents == ()


def test_another_number_of_ranks_per_pod_is_a_resize_too() -> None:
    cluster = ModelCluster().started()
    cluster.edit(consumers={"replicas": 2, "processesPerPod": 3})
    cluster.passes(4)
    assert cluster.names_of("consumer") == ["consumer-0-a2", "consumer-1-a2"]
    config = cluster.things[("ConfigMap", "demo-1c9e0b52-config-e1-a2")].manifest["data"]["job.json"]
    assert '"world_size": 6' in config


def test_crash_during_a_resize_does_not_lose_the_resize() -> None:
    cluster = ModelCluster().started()
    cluster.edit(consumers={"replicas": 1, "processesPerPod": 2})
    cluster.end("consumer-1-a1", 1)
    cluster.passes(4)
    assert cluster.names_of("consumer") == ["consumer-0-a2"]


def test_hazard_04_fenced_member_gets_an_attempt_above_the_stores() -> None:
    cluster = ModelCluster().started()
    cluster.report = a_report(acked_step=1, attempt=7)
    cluster.end("consumer-0-a1", 86)
    cluster.passes(2)
    assert cluster.status.attempt == 8
    assert cluster.names_of("consumer") == ["consumer-0-a8", "consumer-1-a8"]


def test_clean_exit_waits_for_the_word_of_the_service() -> None:
    cluster = ModelCluster().started()
    cluster.reachable = False
    cluster.end("consumer-0-a1", 0)
    cluster.end("consumer-1-a1", 0)
    cluster.passes(3)
    assert cluster.status.attempt == 1
    cluster.reachable = True
    cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100)
    cluster.passes(3)
    assert cluster.verdict("Complete")[0] == "True"
    assert cluster.status.restarts == 0


def test_clean_exit_with_work_left_is_a_counted_failure() -> None:
    cluster = ModelCluster().started()
    cluster.end("consumer-0-a1", 0)
    cluster.reconcile()
    assert cluster.status.attempt == 1, "the other member may still be closing"
    cluster.end("consumer-1-a1", 0)
    cluster.reconcile()
    assert cluster.status.attempt == 2
    assert cluster.status.incidents[-1].klass == "EarlyExit"


def test_gang_that_ended_well_just_before_the_metadata_volume_was_lost_is_started_again() -> None:
    cluster = ModelCluster().started()
    cluster.end("consumer-0-a1", 0)
    cluster.end("consumer-1-a1", 0)
    cluster.delete_claim("demo-1c9e0b52-metadata-e1")
    cluster.reachable = False
    cluster.passes(3)
    assert cluster.status.attempt == 1, "nobody knows yet whether the run is complete"
    cluster.reachable = True
    cluster.report = a_report(store_epoch=2, attempt=0, phase=Phase.PREPARING)
    cluster.passes(2)
    assert cluster.names_of("consumer") == ["consumer-0-a2", "consumer-1-a2"], "only ranks can present the checkpoint"


def test_producers_scale_without_touching_the_gang_and_never_reuse_an_ordinal() -> None:
    cluster = ModelCluster().started()
    cluster.edit(producers={"replicas": 1})
    cluster.passes(2)
    assert cluster.names_of("producer") == ["producer-0-o1"]
    cluster.edit(producers={"replicas": 3})
    cluster.passes(2)
    assert cluster.names_of("producer") == ["producer-0-o1", "producer-1-o2", "producer-2-o1"]
    assert cluster.status.attempt == 1


def test_producer_that_has_nothing_left_to_capture_is_left_alone_until_something_is_lost() -> None:
    cluster = ModelCluster().started()
    cluster.report = a_report(acked_step=1, samples_committed=800)
    cluster.end("producer-0-o1", 0)
    cluster.end("producer-1-o1", 0)
    cluster.passes(3)
    assert cluster.names_of("producer") == ["producer-0-o1", "producer-1-o1"]
    assert cluster.verdict("ProducersReady") == ("True", "CaptureFinished")
    cluster.report = a_report(acked_step=1, samples_committed=800, samples_lost=1)
    cluster.passes(2)
    assert cluster.names_of("producer") == ["producer-0-o2", "producer-1-o2"]


def test_colocated_job_has_neither_producers_nor_a_store() -> None:
    cluster = ModelCluster(a_body(mode="Colocated", store={"backend": "Memory"}))
    cluster.passes(4)
    pods = sorted(thing.manifest["spec"]["hostname"] for thing in cluster.things.values() if thing.kind == "Pod")
    assert pods == ["consumer-0-a1", "consumer-1-a1", "metadata-e1-o1"]


def innocent(cluster: ModelCluster, hostname: str) -> None:
    """The pod's ranks were killed because others of their gang had failed."""
    line = Termination(exit_code=137, klass=KILLED_WITH_GANG, message="killed with its gang")
    cluster.end(hostname, 137, message=encode(line).decode())


def test_member_that_was_killed_with_its_gang_does_not_speak_for_the_one_it_died_of() -> None:
    cluster = ModelCluster().started()
    innocent(cluster, "consumer-0-a1")
    cluster.reconcile()
    assert cluster.status.attempt == 1, "whose fault it was is not told yet"
    cluster.end("consumer-1-a1", 1, message="Xid 79, GPU has fallen off the bus")
    cluster.reconcile()
    assert cluster.status.attempt == 2
    (incident,) = cluster.status.incidents
    assert (incident.klass, incident.counted) == ("Hardware", True)
    assert len(cluster.status.strikes) == 1


def test_gang_of_which_all_were_killed_with_it_is_counted_at_once() -> None:
    cluster = ModelCluster().started()
    for member in ("consumer-0-a1", "consumer-1-a1"):
        innocent(cluster, member)
    cluster.reconcile()
    assert cluster.status.attempt == 2
    (incident,) = cluster.status.incidents
    assert (incident.klass, incident.counted) == (KILLED_WITH_GANG, True)


def test_culprit_that_never_says_anything_is_not_waited_for_longer_than_the_limit() -> None:
    cluster = ModelCluster().started()
    innocent(cluster, "consumer-0-a1")
    cluster.now += CULPRIT_SECONDS - 0.1
    cluster.reconcile()
    assert cluster.status.attempt == 1
    cluster.now += 0.1
    cluster.reconcile()
    assert cluster.status.attempt == 2


def test_member_that_vanished_is_the_cause_beside_one_that_was_killed_with_it() -> None:
    cluster = ModelCluster().started()
    innocent(cluster, "consumer-0-a1")
    cluster.vanish("consumer-1-a1")
    cluster.reconcile()
    assert cluster.status.attempt == 2
    (incident,) = cluster.status.incidents
    assert (incident.klass, incident.counted) == ("PodDeleted", False)
