"""Counters of work follow the metadata service and never go down."""

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from eyas_operator.api.progress import Progress
from eyas_operator.api.status import JobStatus
from eyas_operator.telemetry import Telemetry
from eyas_operator.totals import Totals
from support.model_cluster import ModelCluster
from support.operator_world import JOB, a_report

COUNTED = {
    "samples_produced": "produced", "samples_acked": "acked", "samples_lost": "lost", "samples_replayed": "replayed",
    "samples_applied_twice": "applied_twice", "samples_missing": "missing",
}  # fmt: skip
GOES_ON = ("samples_lost", "samples_replayed", "lost_work_seconds")


class Watched:
    """Totals with a registry that can be asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.totals = Totals("eyas", self.registry)

    def tell(self, **progress: object) -> None:
        self.totals.observe(JOB, replace(Progress(), **progress))  # type: ignore[arg-type]

    def value(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"eyas_{name}_total", {"namespace": JOB.namespace, "job": JOB.name})


@pytest.mark.parametrize(("name", "field"), COUNTED.items())
def test_a_counter_is_what_the_service_counted(name: str, field: str) -> None:
    watched = Watched()
    watched.tell(**{field: 7})
    assert watched.value(name) == 7
    watched.tell(**{field: 9})
    watched.tell(**{field: 9})
    assert watched.value(name) == 9


def test_lost_seconds_are_read_from_their_text() -> None:
    watched = Watched()
    watched.tell(lost_work_seconds="1.250")
    watched.tell(lost_work_seconds="3.500")
    assert watched.value("lost_work_seconds") == 3.5
    for nonsense in ("", "a lot", "nan", "inf"):
        watched.tell(lost_work_seconds=nonsense)
        assert watched.value("lost_work_seconds") == 3.5
    watched.tell(lost_work_seconds="4.000")
    assert watched.value("lost_work_seconds") == 4.0


@pytest.mark.parametrize("name", [*COUNTED, "lost_work_seconds"])
def test_a_fall_is_a_new_beginning_or_the_same_once_more(name: str) -> None:
    watched = Watched()
    for told in (10, 4, 6, 12):
        watched.tell(**({COUNTED[name]: told} if name in COUNTED else {"lost_work_seconds": str(told)}))
    assert watched.value(name) == (10 + 2 + 6 if name in GOES_ON else 12)


def test_what_is_not_told_has_no_series_and_costs_none() -> None:
    watched = Watched()
    watched.tell()
    told = {name for name in [*COUNTED, "lost_work_seconds"] if watched.value(name) is not None}
    assert told == {"samples_produced", "samples_acked", "samples_lost"}
    watched.tell(replayed=5)
    watched.tell()
    watched.tell(replayed=6)
    assert watched.value("samples_replayed") == 6


def test_a_job_of_the_same_name_counts_from_its_own_beginning() -> None:
    watched = Watched()
    watched.tell(acked=10)
    watched.totals.observe(replace(JOB, uid="11111111-2222-3333-4444-555555555555"), Progress(acked=3))
    assert watched.value("samples_acked") == 13


def test_series_of_a_deleted_job_are_gone_and_begin_anew() -> None:
    telemetry = Telemetry()
    status = JobStatus(progress=Progress(acked=5, lost=4, replayed=3, applied_twice=2, missing=1, goodput="0.97",
                                         lost_work_seconds="2.000"))  # fmt: skip
    telemetry.observe(JOB, JobStatus(), status)
    telemetry.forget(JOB.namespace, JOB.name)
    left = [
        sample.name for family in telemetry.registry.collect() for sample in family.samples if "job" in sample.labels
    ]
    assert left == []
    telemetry.observe(JOB, JobStatus(), replace(status, progress=Progress(acked=2)))
    where = {"namespace": JOB.namespace, "job": JOB.name}
    assert telemetry.registry.get_sample_value("eyas_samples_acked_total", where) == 2


def test_goodput_that_is_not_known_has_no_series() -> None:
    telemetry, where = Telemetry(), {"namespace": JOB.namespace, "job": JOB.name}
    for goodput, shown in (("", None), ("0.25", 0.25), ("", None)):
        telemetry.observe(JOB, JobStatus(), JobStatus(progress=Progress(goodput=goodput)))
        assert telemetry.registry.get_sample_value("eyas_goodput_ratio", where) == shown


def test_the_services_numbers_reach_the_series() -> None:
    cluster, telemetry = ModelCluster().started(), Telemetry()
    cluster.report = a_report(
        acked_step=6, samples_committed=60, samples_trained=48, samples_ready=20, samples_waiting=12,
        samples_recaptured=5, samples_replayed=16, samples_applied_twice=0, samples_missing=0,
        lost_work_seconds=1.5, goodput_ratio=0.875, resident_bytes=4096,
    )  # fmt: skip
    cluster.now += 60
    cluster.reconcile()
    telemetry.observe(JOB, JobStatus(), cluster.status)
    seen = {
        sample.name: sample.value
        for family in telemetry.registry.collect()
        for sample in family.samples
        if set(sample.labels) == {"namespace", "job"}
    }
    expected = {
        "eyas_samples_produced_total": 60, "eyas_samples_acked_total": 48, "eyas_samples_lost_total": 5,
        "eyas_samples_replayed_total": 16, "eyas_samples_applied_twice_total": 0, "eyas_samples_missing_total": 0,
        "eyas_lost_work_seconds_total": 1.5, "eyas_goodput_ratio": 0.88, "eyas_queue_lag_samples": 12,
        "eyas_store_resident_bytes": 4096,
    }  # fmt: skip
    assert {name: seen.get(name) for name in expected} == expected


def test_a_service_of_an_older_image_is_believed_and_says_less() -> None:
    cluster, telemetry = ModelCluster().started(), Telemetry()
    cluster.report = a_report(acked_step=6, samples_committed=60, samples_ready=20)
    cluster.now += 60
    cluster.reconcile()
    telemetry.observe(JOB, JobStatus(), cluster.status)
    progress = cluster.status.progress
    assert (progress.produced, progress.lag, progress.replayed, progress.goodput) == (60, 20, None, "")
    where = {"namespace": JOB.namespace, "job": JOB.name}
    assert telemetry.registry.get_sample_value("eyas_samples_applied_twice_total", where) is None
