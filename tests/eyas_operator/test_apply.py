"""Order of one plan's effects: status, then words, then deeds; and what is measured of it."""

from dataclasses import replace

import pytest

from eyas_operator.api.status import JobStatus
from eyas_operator.cluster import Event, ObjectRef
from eyas_operator.detection import detections
from eyas_operator.names import JobIdentity
from eyas_operator.reconciler import Reconciler
from eyas_operator.telemetry import Telemetry
from eyas_operator.world import JobRecord, Manifest
from support.model_cluster import ModelCluster
from support.operator_world import ENVIRONMENT, JOB, SETTINGS, run


class Ordered(ModelCluster):
    """A model that keeps the order of what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    async def post_events(self, job: JobIdentity, events: tuple[Event, ...]) -> None:
        self.log += [f"told {event.reason}: {event.message}" for event in events]
        await super().post_events(job, events)

    async def delete(self, job: JobIdentity, target: ObjectRef, *, grace_seconds: int) -> None:
        self.log.append(f"deleted {target.name}")
        await super().delete(job, target, grace_seconds=grace_seconds)

    async def write_status(self, job: JobRecord, status: Manifest) -> JobRecord:
        self.log.append("status")
        return await super().write_status(job, status)


def test_the_facts_of_a_crash_are_told_before_the_pod_is_deleted() -> None:
    cluster = Ordered()
    cluster.started()
    cluster.end("producer-0-o1", 3, message="out of luck")
    cluster.log.clear()
    cluster.passes(2)
    told = next(index for index, entry in enumerate(cluster.log) if "out of luck" in entry)
    deleted = next(index for index, entry in enumerate(cluster.log) if entry.endswith("producer-0-o1"))
    assert cluster.log[0] == "status"
    assert 0 < told < deleted


def test_events_and_counters_survive_an_action_that_fails() -> None:
    telemetry = Telemetry()
    cluster = ModelCluster().started()
    cluster.end("producer-0-o1", 3)
    cluster.fail_creates = 1
    for _ in range(3):
        run(Reconciler(cluster, ENVIRONMENT, SETTINGS, lambda: cluster.now, telemetry).reconcile("default", "demo"))
        cluster.now += 1
    assert [event.reason for event in cluster.events].count("PodReplaced") == 1
    labels = {"namespace": "default", "job": "demo", "role": "producer", "class": "Crash"}
    assert telemetry.registry.get_sample_value("eyas_restarts_total", labels) == 1


def test_a_failure_is_detected_as_late_as_its_first_members_end() -> None:
    cluster = ModelCluster().started()
    before = cluster.status
    for name, at in (("consumer-0-a1", "2027-01-15T08:00:00Z"), ("consumer-1-a1", "2027-01-15T08:00:02Z")):
        ended = {"exitCode": 1, "finishedAt": at}
        cluster.pod(name).status = {
            "phase": "Failed",
            "containerStatuses": [{"name": "main", "state": {"terminated": ended}}],
        }
    children = run(cluster.list_children(JOB))
    now = 1_800_000_010.0
    cluster.reconcile()
    assert detections(before, cluster.status, children, now) == [("consumers", 10.0)]
    assert detections(cluster.status, cluster.status, children, now) == []


def test_a_pod_that_left_no_trace_is_no_measurement() -> None:
    cluster = ModelCluster().started()
    before = cluster.status
    cluster.vanish("producer-1-o1")
    cluster.reconcile()
    assert cluster.status.incidents
    assert detections(before, cluster.status, run(cluster.list_children(JOB)), cluster.now) == []


def test_a_clock_that_is_ahead_gives_no_negative_time() -> None:
    telemetry = Telemetry()
    telemetry.detected("producer", -3.0)
    assert telemetry.registry.get_sample_value("eyas_failure_detection_seconds_sum", {"role": "producer"}) == 0.0


def test_the_series_of_a_job_end_with_it_and_those_of_others_stay() -> None:
    telemetry = Telemetry()
    cluster = ModelCluster().started()
    other = replace(JOB, name="other")
    for job in (JOB, other):
        telemetry.observe(job, JobStatus(), cluster.status)
    telemetry.forget(JOB.namespace, JOB.name)
    jobs = {
        sample.labels["job"]
        for family in telemetry.registry.collect()
        for sample in family.samples
        if "job" in sample.labels
    }
    assert jobs == {"other"}


@pytest.mark.parametrize("stage", ["New", "Running"])
def test_a_job_is_in_one_stage_at_a_time(stage: str) -> None:
    telemetry = Telemetry()
    cluster = ModelCluster()
    telemetry.observe(JOB, JobStatus(), JobStatus())
    if stage == "Running":
        cluster.started()
        telemetry.observe(JOB, JobStatus(), cluster.status)
    states = {
        sample.labels["state"]: sample.value
        for family in telemetry.registry.collect()
        for sample in family.samples
        if sample.name == "eyas_job_info"
    }
    assert states == {stage: 1.0}
