"""Claims about `/metrics`: every documented name is there, parses, and says what happened."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eyas_contract import wire
from eyas_runtime.metadata.service.prometheus import Telemetry
from eyas_runtime.metadata.service.work import Work
from support.operator_world import a_report

DOCUMENTED = {
    "eyas_job_info", "eyas_queue_lag_samples", "eyas_store_resident_bytes", "eyas_samples_produced_total",
    "eyas_samples_acked_total", "eyas_samples_replayed_total", "eyas_samples_lost_total",
    "eyas_samples_applied_twice_total", "eyas_lost_work_seconds_total", "eyas_goodput_ratio", "eyas_open_incidents",
}  # fmt: skip
AUDIT = wire.AuditReply(
    trained_once=40, trained_twice=0, missing=0, dead_lettered=0, resident_objects=0, resident_bytes=0, live_leases=0
)
LABELS = {"job", "store_epoch", "phase", "call", "code", "reason", "le"}


def scrape(work: Work, *, now: float = 100.0, **status: object) -> dict[str, float]:
    telemetry = Telemetry("demo")
    telemetry.observe("/v1/status", 200, 0.01)
    text = telemetry.render(a_report(**status), AUDIT, work, window_size=4, now=now).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert all(set(sample.labels) <= LABELS for sample in samples)
    assert all(sample.name.startswith("eyas_") for sample in samples)
    return {sample.name: sample.value for sample in samples}


def test_every_documented_metric_is_there_and_parses() -> None:
    assert set(scrape(Work())) >= DOCUMENTED


def test_a_family_is_declared_once() -> None:
    telemetry = Telemetry("demo")
    text = telemetry.render(a_report(), AUDIT, Work(), window_size=4, now=1.0).decode()
    declared = [line.split()[2].removesuffix("_total") for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(declared) == len(set(declared))


def test_replayed_samples_and_lost_work_count_what_a_restart_threw_away() -> None:
    work = Work()
    work.gang_opened(trained_step=0, checkpoint_step=0, now=0.0)
    for _ in range(5):
        work.stepped(2.0, now=10.0)
    work.gang_opened(trained_step=5, checkpoint_step=2, now=11.0)
    seen = scrape(work, now=20.0)
    assert seen["eyas_samples_replayed_total"] == 12.0
    assert seen["eyas_lost_work_seconds_total"] == pytest.approx(6.0)
    assert seen["eyas_goodput_ratio"] == pytest.approx((10.0 - 6.0) / 20.0)


@pytest.mark.parametrize("nonsense", [None, float("nan"), float("inf"), -1.0, 1e9])
def test_a_duration_that_cannot_be_is_no_work(nonsense: float | None) -> None:
    work = Work()
    work.stepped(nonsense, now=0.0)
    assert scrape(work, now=10.0)["eyas_goodput_ratio"] == 0.0


def test_queue_lag_counts_evaluated_samples_as_used() -> None:
    seen = scrape(Work(), samples_committed=30, samples_trained=12, samples_evaluated=10, samples_dead=3)
    assert seen["eyas_queue_lag_samples"] == 5.0
    assert (seen["eyas_samples_acked_total"], seen["eyas_samples_evaluated_total"]) == (12.0, 10.0)


def test_open_incidents_are_those_without_work_after_them() -> None:
    over = wire.Incident(klass="Hang", unit="consumers", message="m", detected=1.0, recovered=2.0)
    still = wire.Incident(klass="Hang", unit="consumers", message="m", detected=3.0)
    assert scrape(Work(), incidents=(over, still))["eyas_open_incidents"] == 1.0
