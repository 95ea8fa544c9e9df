"""Metrics: bounded labels, counters that count once."""

from prometheus_client import CollectorRegistry

from eyas_operator.api.incidents import Incident
from eyas_operator.api.status import JobStatus
from eyas_operator.telemetry import Telemetry
from support.model_cluster import ModelCluster
from support.operator_world import JOB

ALLOWED_LABELS = {"namespace", "job", "role", "class", "type", "status", "state", "result", "le"}


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(name, labels) or 0.0


def an_incident(**fields: object) -> Incident:
    base: dict[str, object] = {
        "klass": "Crash", "unit": "producer-1", "source": "Operator", "message": "m", "serial": 3,
        "detected_time": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip
    return Incident(**(base | fields))  # type: ignore[arg-type]


def test_an_incident_counts_once_when_it_opens_and_once_when_it_closes() -> None:
    telemetry = Telemetry()
    nothing, opened = JobStatus(), JobStatus(incidents=(an_incident(),))
    over = an_incident(first_step_time="2026-01-01T00:00:04.000Z", seconds=4, outcome="Recovered")
    closed = JobStatus(incidents=(over,))
    for old, new in ((nothing, opened), (opened, opened), (opened, closed), (closed, closed)):
        telemetry.observe(JOB, old, new)
    labels = {"namespace": "default", "job": "demo", "role": "producer", "class": "Crash"}
    assert sample(telemetry.registry, "eyas_restarts_total", **labels) == 1
    recovered = {"role": "producer", "class": "Crash"}
    assert sample(telemetry.registry, "eyas_recovery_seconds_count", **recovered) == 1
    assert sample(telemetry.registry, "eyas_recovery_seconds_sum", **recovered) == 4


def test_downtime_is_that_of_the_ranks() -> None:
    telemetry = Telemetry()
    for unit, seconds in (("consumers", 6), ("producer-1", 4)):
        over = an_incident(unit=unit, seconds=seconds, outcome="Recovered")
        telemetry.observe(JOB, JobStatus(incidents=(an_incident(unit=unit),)), JobStatus(incidents=(over,)))
        telemetry.observe(JOB, JobStatus(incidents=(over,)), JobStatus(incidents=(over,)))
    assert sample(telemetry.registry, "eyas_downtime_seconds_total", namespace="default", job="demo") == 6


def test_a_restart_in_a_pod_counts_and_what_is_no_restart_has_no_series() -> None:
    telemetry = Telemetry()
    restart = an_incident(klass="ChildExited", unit="store-node-1", source="Service")
    struck = an_incident(klass="CheckpointStruck", unit="step-000000004.a1.0123abcd", source="Service", seconds=3)
    told = JobStatus(incidents=(restart, struck))
    for old in (JobStatus(), told):
        telemetry.observe(JOB, old, told)
    labels = {"namespace": "default", "job": "demo", "role": "store-node", "class": "ChildExited"}
    assert sample(telemetry.registry, "eyas_restarts_total", **labels) == 1
    roles = {
        entry.labels["role"]
        for family in telemetry.registry.collect()
        for entry in family.samples
        if "role" in entry.labels
    }
    assert roles == {"store-node"}


def test_labels_are_bounded_and_names_have_the_prefix() -> None:
    telemetry = Telemetry()
    cluster = ModelCluster().started()
    cluster.end("producer-0-o1", 1)
    before = cluster.status
    cluster.reconcile()
    telemetry.observe(JOB, before, cluster.status)
    telemetry.reconciled("done", 0.01)
    for family in telemetry.registry.collect():
        assert family.name.startswith("eyas_")
        for entry in family.samples:
            assert set(entry.labels) <= ALLOWED_LABELS
            assert not any("o1" in value for value in entry.labels.values())


def test_gauges_follow_the_status() -> None:
    telemetry = Telemetry()
    cluster = ModelCluster().started()
    telemetry.observe(JOB, JobStatus(), cluster.status)
    where = {"namespace": "default", "job": "demo"}
    assert sample(telemetry.registry, "eyas_step", **where) == 1
    assert sample(telemetry.registry, "eyas_pods", **where, role="producer", state="desired") == 2
    assert sample(telemetry.registry, "eyas_job_condition", **where, type="Accepted", status="True") == 1
