"""Every restart is an incident with cause and seconds; the list stays bounded."""

import pytest

from eyas_contract import wire
from eyas_contract.states import Gang, Phase
from eyas_contract.wire import StatusReply
from eyas_operator.api.incidents import INCIDENTS_MAX
from support.model_cluster import ModelCluster
from support.operator_world import NOW, a_report


def test_gang_incident_closes_at_the_first_new_step_and_counts_replayed_windows() -> None:
    cluster = ModelCluster().started()
    cluster.report = a_report(acked_step=30, durable_step=20, samples_committed=300, gang=Gang.OPEN)
    cluster.passes(1)
    detected = cluster.now
    cluster.end("consumer-0-a1", 1, message="boom")
    cluster.reconcile()
    (incident,) = cluster.status.incidents
    assert (incident.klass, incident.unit, incident.serial, incident.counted) == ("Crash", "consumers", 1, True)
    assert "boom" in incident.message
    assert incident.node == "node-1"
    assert incident.seconds == -1
    assert cluster.verdict("Recovering") == ("True", "Crash")
    cluster.now += 3
    cluster.passes(2)
    assert cluster.status.incidents[0].replaced_time
    assert not cluster.status.incidents[0].first_step_time, "ready pods are not yet work"
    cluster.report = a_report(acked_step=20, durable_step=20, samples_committed=300, attempt=2)
    cluster.passes(1)
    assert not cluster.status.incidents[0].first_step_time
    cluster.report = a_report(acked_step=21, durable_step=20, samples_committed=300, attempt=2)
    cluster.reconcile()
    (incident,) = cluster.status.incidents
    assert incident.seconds == round(cluster.now - detected)
    assert incident.windows_replayed == 10
    assert cluster.verdict("Recovering")[0] == "False"


def test_old_attempts_steps_do_not_close_the_incident() -> None:
    cluster = ModelCluster().started()
    cluster.end("consumer-0-a1", 1)
    cluster.passes(2)
    cluster.report = a_report(acked_step=50, durable_step=2, attempt=1, samples_committed=16)
    cluster.passes(2)
    assert not cluster.status.incidents[0].first_step_time


def test_producer_incident_closes_with_a_captured_sample() -> None:
    cluster = ModelCluster().started()
    cluster.end("producer-1-o1", 1)
    cluster.passes(3)
    assert cluster.status.incidents[0].replaced_time
    assert not cluster.status.incidents[0].first_step_time
    cluster.report = a_report(acked_step=1, samples_committed=17)
    cluster.passes(1)
    assert cluster.status.incidents[0].first_step_time


def test_incidents_of_the_service_are_shown_too() -> None:
    cluster = ModelCluster().started()
    hang = wire.Incident(
        klass="Hang",
        unit="consumer-0/1",
        message="no work",
        detected=NOW,
        step=4,
        recovered=NOW + 7,
        windows_replayed=2,
    )
    cluster.report = a_report(acked_step=5, samples_committed=40, incidents=(hang,))
    cluster.passes(2)
    (incident,) = cluster.status.incidents
    assert (incident.source, incident.klass, incident.seconds, incident.windows_replayed) == ("Service", "Hang", 7, 2)


def in_place(**changes: object) -> wire.Incident:
    base: dict[str, object] = {
        "klass": "ChildExited", "unit": "consumers", "message": "rank 1 ended with SIGKILL", "detected": NOW + 9,
        "serial": 1, "step": 1,
    }  # fmt: skip
    return wire.Incident(**(base | changes))  # type: ignore[arg-type]


def report(*incidents: wire.Incident, **changes: object) -> StatusReply:
    return a_report(**({"acked_step": 1, "samples_committed": 16, "gang": Gang.OPEN, "incidents": incidents} | changes))


def outcomes(cluster: ModelCluster) -> list[tuple[str, str, int]]:
    return [(it.unit, it.outcome, it.seconds) for it in cluster.status.incidents]


def test_a_restart_in_a_pod_is_recovering_until_the_next_step_and_told_once() -> None:
    cluster = ModelCluster().started()
    cluster.report = report(in_place())
    cluster.passes(2)
    assert cluster.verdict("Recovering") == ("True", "ChildExited")
    cluster.report = report(in_place(replaced=NOW + 11, recovered=NOW + 13), acked_step=2)
    cluster.passes(2)
    (incident,) = cluster.status.incidents
    assert (incident.serial, incident.outcome, incident.seconds) == (1, "Recovered", 4)
    assert incident.detected_time < incident.replaced_time < incident.first_step_time
    assert cluster.verdict("Recovering")[0] == "False"
    assert [event.reason for event in cluster.events if event.reason == "ProcessRestarted"] == ["ProcessRestarted"]


def test_an_incident_that_a_suspension_ends_has_no_step_and_no_price() -> None:
    cluster = ModelCluster().started()
    cluster.report = report(in_place())
    cluster.end("producer-1-o1", 1)
    cluster.reconcile()
    cluster.edit(suspend=True)
    cluster.passes(5)
    assert outcomes(cluster) == [("producer-1", "Suspended", -1), ("consumers", "Suspended", -1)]
    assert not any(it.first_step_time for it in cluster.status.incidents)
    cluster.edit(suspend=False)
    cluster.report = report(in_place(recovered=NOW + 60), attempt=2, acked_step=9)
    cluster.passes(4)
    assert [outcome for _, outcome, _ in outcomes(cluster)] == ["Suspended", "Suspended"], "what is over stays so"


def test_an_incident_that_the_jobs_end_closes_has_no_step_and_no_price() -> None:
    cluster = ModelCluster().started()
    cluster.report = report(in_place(unit="store-master"))
    cluster.passes(1)
    cluster.report = report(in_place(unit="store-master"), phase=Phase.FAILED, failure="CheckpointsLost: gone")
    cluster.end("producer-0-o1", 1)
    cluster.passes(3)
    assert cluster.verdict("Failed")[0] == "True"
    assert {outcome for _, outcome, _ in outcomes(cluster)} == {"Ended"}
    assert {seconds for _, _, seconds in outcomes(cluster)} == {-1}


def test_ranks_that_came_back_only_to_finish_have_recovered() -> None:
    cluster = ModelCluster().started()
    cluster.end("consumer-0-a1", 1)
    cluster.passes(2)
    cluster.report = report(phase=Phase.COMPLETE, attempt=2, acked_step=100, durable_step=100)
    cluster.passes(1)
    assert [outcome for _, outcome, _ in outcomes(cluster)] == ["Recovered"]


def test_a_unit_that_is_scaled_away_leaves_no_open_incident() -> None:
    cluster = ModelCluster().started()
    cluster.end("producer-1-o1", 1)
    cluster.reconcile()
    cluster.edit(producers={"replicas": 1})
    cluster.passes(2)
    assert outcomes(cluster) == [("producer-1", "Removed", -1)]


@pytest.mark.parametrize("klass", ["Hang", "GangReplaced", "ChildExited"])
def test_what_the_service_sees_of_an_attempt_that_is_known_to_be_dead_is_no_second_incident(klass: str) -> None:
    cluster = ModelCluster().started()
    cluster.end("consumer-0-a1", 137)
    cluster.passes(2)
    cluster.report = report(in_place(klass=klass, detected=cluster.now + 10.0, windows_replayed=3))
    cluster.passes(2)
    assert [(it.klass, it.windows_replayed) for it in cluster.status.incidents] == [("Crash", 3)]
    later = in_place(klass=klass, detected=cluster.now + 20.0, serial=2)
    cluster.report = report(later, attempt=2)
    cluster.passes(1)
    assert [it.klass for it in cluster.status.incidents] == ["Crash", klass], "the next attempt's own is another one"


@pytest.mark.parametrize("told_before", [True, False])
def test_a_childs_restart_that_its_dead_pod_left_open_has_the_pods_successor(told_before: bool) -> None:
    cluster = ModelCluster().started()
    born = cluster.now
    child = in_place(unit="store-node-0", detected=born)
    if told_before:
        cluster.report = report(child)
        cluster.passes(1)
    cluster.now += 5
    cluster.end("store-node-0-o1", 86)
    cluster.report = report(child)
    died = cluster.now
    cluster.reconcile()
    assert outcomes(cluster) == [("store-node-0", "", -1), ("store-node-0", "", -1)]
    cluster.passes(3)
    assert all(it.replaced_time for it in cluster.status.incidents)
    cluster.report = report(child, acked_step=2)
    cluster.passes(1)
    assert [outcome for _, outcome, _ in outcomes(cluster)] == ["Recovered", "Recovered"]
    first, second = (seconds for _, _, seconds in outcomes(cluster))
    assert first - second == round(died - born), "each is counted from its own end"


def test_a_childs_restart_in_the_next_pod_is_not_over_with_the_dead_one() -> None:
    cluster = ModelCluster().started()
    cluster.end("store-node-0-o1", 1)
    cluster.passes(3)
    cluster.report = report(in_place(unit="store-node-0", detected=cluster.now, serial=2), acked_step=2)
    cluster.passes(2)
    assert [outcome for _, outcome, _ in outcomes(cluster)] == ["Recovered", ""]


def test_a_childs_restart_in_a_pod_that_is_known_to_be_dead_is_no_second_incident() -> None:
    cluster = ModelCluster().started()
    cluster.end("store-node-0-o1", 1)
    cluster.passes(2)
    cluster.report = report(in_place(unit="store-node-0", detected=cluster.now + 10.0))
    cluster.passes(1)
    assert [it.klass for it in cluster.status.incidents] == ["Crash"]


def test_a_childs_restart_in_a_pod_that_is_scaled_away_is_not_open_for_ever() -> None:
    cluster = ModelCluster().started()
    cluster.report = report(in_place(unit="producer-1"))
    cluster.passes(1)
    assert outcomes(cluster) == [("producer-1", "", -1)]
    cluster.edit(producers={"replicas": 1})
    cluster.passes(2)
    assert outcomes(cluster) == [("producer-1", "Removed", -1)]


def test_incidents_that_the_service_lost_with_its_volume_stay_in_the_status() -> None:
    cluster = ModelCluster().started()
    cluster.report = report(in_place(recovered=NOW + 12))
    cluster.passes(1)
    cluster.report = report(in_place(unit="store-master", detected=NOW + 20))
    cluster.passes(1)
    assert [unit for unit, _, _ in outcomes(cluster)] == ["consumers", "store-master"]


def test_list_is_bounded_and_keeps_the_newest() -> None:
    cluster = ModelCluster().started()
    for step in range(2, INCIDENTS_MAX + 12):
        cluster.end(f"consumer-0-a{cluster.status.attempt}", 1)
        cluster.passes(2)
        cluster.report = a_report(
            acked_step=step, durable_step=step, samples_committed=8 * step, attempt=cluster.status.attempt
        )
        cluster.passes(1)
    incidents = cluster.status.incidents
    assert len(incidents) == INCIDENTS_MAX
    assert max(incident.serial for incident in incidents) == cluster.status.attempt - 1
    assert cluster.status.restarts == INCIDENTS_MAX + 10


def test_a_flood_of_lost_samples_pushes_no_restart_out_of_the_list() -> None:
    cluster = ModelCluster().started()
    killed = in_place(recovered=NOW + 12)
    lost = [
        in_place(klass="SampleLost", unit="store", detected=NOW + 20 + number, recovered=NOW + 90, message=str(number))
        for number in range(INCIDENTS_MAX)
    ]
    cluster.report = report(killed)
    cluster.passes(1)
    cluster.report = report(killed, *lost)
    cluster.passes(2)
    incidents = cluster.status.incidents
    assert len(incidents) == INCIDENTS_MAX
    assert incidents[0].klass == "ChildExited"


def test_crash_facts_are_told_before_the_pod_is_gone() -> None:
    cluster = ModelCluster().started()
    cluster.end("producer-0-o1", 139, message="in attention kernel")
    cluster.reconcile()
    told = [event for event in cluster.events if event.reason == "PodReplaced"]
    assert len(told) == 1
    assert "producer-0, number 1 on node-1: Crash: exit code 139 (Error): in attention kernel" in told[0].message


def test_hardware_failures_strike_the_node_and_later_pods_avoid_it() -> None:
    cluster = ModelCluster().started()
    for ordinal in (1, 2):
        cluster.end(f"producer-0-o{ordinal}", 1, message="Xid 79: GPU has fallen off the bus")
        cluster.now += 61
        cluster.passes(2)
    (entry,) = cluster.status.strikes
    assert (entry.node, entry.strikes) == ("node-1", 2)
    cluster.end("producer-1-o1", 1)
    cluster.passes(2)
    affinity = cluster.pod("producer-1-o2").manifest["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["preference"]["matchFields"][0]["values"] == ["node-1"]
    cluster.now += 3600
    cluster.passes(1)
    cluster.now += 3600
    cluster.passes(1)
    assert cluster.status.strikes == ()
