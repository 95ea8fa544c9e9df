"""`/metrics`: what the service has seen since it started, and the job's numbers as they stand.

Labels are bounded: the job's name, the call, the status code, a reason out of a fixed list; never a pod, a sample, a
key or a message.
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from eyas_contract import wire
from eyas_contract.states import Phase

_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)
_GAUGES: Final[tuple[tuple[str, str, str], ...]] = (
    ("attempt", "attempt", "Attempt of the consumer gang."),
    ("total_steps", "total_steps", "Optimizer steps of the whole job."),
    ("sealed_step", "sealed_step", "Highest sealed window."),
    ("acked_step", "acked_step", "Highest step that the ranks acked."),
    ("durable_step", "durable_step", "Step of the last durable checkpoint."),
    ("samples_ready", "samples_ready", "Samples in the store, those of acked windows that are not durable included."),
    ("queue_lag_samples", "samples_waiting", "Samples in the store that no acked window contains."),
    ("samples_to_recapture", "samples_lost", "Samples whose features are gone and that are captured again."),
    ("samples_dead", "samples_dead", "Dead letters."),
    ("store_resident_objects", "resident_objects", "Objects in the feature store."),
    ("store_resident_bytes", "resident_bytes", "Bytes in the feature store."),
    ("store_reserved_bytes", "reserved_bytes", "Bytes promised to live leases."),
    ("store_cap_bytes", "cap_bytes", "Effective cap on resident and reserved bytes."),
    ("live_leases", "live_leases", "Live capture leases."),
    ("last_advance_age_seconds", "seconds_since_advance", "Seconds since a step was acked or made durable."),
    ("steps_per_second", "steps_per_second", "Steps per second over the last minute."),
    (
        "goodput_ratio", "goodput_ratio",
        "Share of the time since the first ranks in which windows were trained for the first time.",
    ),
)  # fmt: skip
_COUNTERS: Final[tuple[tuple[str, str, str], ...]] = (
    ("samples_produced", "samples_committed", "Samples committed at least once."),
    ("samples_acked", "samples_trained", "Training samples in acked windows."),
    ("samples_evaluated", "samples_evaluated", "Uses of held-out samples in acked windows."),
    ("samples_lost", "samples_recaptured", "Samples whose features were lost from the store and captured again."),
    ("samples_replayed", "samples_replayed", "Samples trained again after a way back to a checkpoint."),
    ("samples_applied_twice", "samples_applied_twice", "Must stay 0: samples applied twice along the checkpoints."),
    ("samples_missing", "samples_missing", "Must stay 0: samples below the durable step, neither trained nor dead."),
    ("lost_work_seconds", "lost_work_seconds", "What the ranks took to train windows again."),
    ("capture_drift", "capture_drift", "Recaptures with other bytes than before."),
)


class Telemetry:
    """Counters of this process. One registry of its own, so that two services in one process do not meet."""

    def __init__(self, job_name: str) -> None:
        self._job = job_name
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "eyas_metadata_requests_total", "Answered calls.", ["job", "call", "code"], registry=self._registry
        )
        self._seconds = Histogram(
            "eyas_metadata_request_duration_seconds",
            "From the request head to the answer; long polls include their wait.",
            ["job", "call"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._deleted = Counter(
            "eyas_store_objects_deleted_total", "Objects deleted.", ["job", "reason"], registry=self._registry
        )
        self._swept = Counter(
            "eyas_store_sweeps_total", "Looks at the whole feature store.", ["job"], registry=self._registry
        )
        self._refused = Counter(
            "eyas_metadata_connections_refused_total", "Connections over a limit.", ["job", "reason"],
            registry=self._registry,
        )  # fmt: skip

    def observe(self, call: str, code: int, seconds: float) -> None:
        """One answered call."""
        self._requests.labels(self._job, call, str(code)).inc()
        self._seconds.labels(self._job, call).observe(seconds)

    def deleted(self, reason: str, count: int) -> None:
        """Objects deleted because they were `released` or `orphan`."""
        self._deleted.labels(self._job, reason).inc(count)

    def swept(self) -> None:
        """The whole store was looked at: what lay there without a row is deleted, what was missing is known."""
        self._swept.labels(self._job).inc()

    def refused(self, reason: str, count: int) -> None:
        """Connections cut because they were `silent` or `many`."""
        self._refused.labels(self._job, reason).inc(count)

    def render(self, status: wire.StatusReply) -> bytes:
        """Prometheus text: this process's counters, then the job."""
        registry = CollectorRegistry()
        registry.register(_Snapshot(self._job, status))
        return generate_latest(self._registry) + generate_latest(registry)


class _Snapshot(Collector):
    """The job's numbers as metric families."""

    def __init__(self, job: str, status: wire.StatusReply) -> None:
        self._job = job
        self._status = status

    def collect(self) -> Iterable[Metric]:
        status = self._status
        info = InfoMetricFamily("eyas_job", "The job.", labels=["job"])
        info.add_metric([self._job], {"store_epoch": str(status.store_epoch)})
        yield info
        for family, table in ((self._gauge, _GAUGES), (self._counter, _COUNTERS)):
            for name, attribute, text in table:
                value: float | None = getattr(status, attribute)
                if value is not None:
                    yield family(name, text, value)
        open_incidents = sum(1 for incident in status.incidents if not incident.recovered)
        yield self._gauge("open_incidents", "Incidents after which no work was seen yet.", float(open_incidents))
        yield self._gauge("exact", "1 while the weights are bit for bit those of an undisturbed run.", status.exact)
        phase = GaugeMetricFamily("eyas_job_phase", "1 for the present phase.", labels=["job", "phase"])
        for each in Phase:
            phase.add_metric([self._job, each.value], float(each == status.phase))
        yield phase

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"eyas_{name}", text, labels=["job"])
        family.add_metric([self._job], value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"eyas_{name}", text, labels=["job"])
        family.add_metric([self._job], value)
        return family
