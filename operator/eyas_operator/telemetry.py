"""The operator's metrics: one prefix, base units, bounded labels (no pod names, no UIDs, no messages).

Counters come from differences between the stored status and the new one, so a pass that is repeated counts nothing
twice once its status was written.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from eyas_operator.api.status import Incident, JobStatus, Stage
from eyas_operator.names import JobIdentity

PREFIX: Final = "eyas"
RECOVERY_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600, 1800)
_JOB: Final = ("namespace", "job")


class Telemetry:
    """All metrics of one operator, in one registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Without a registry a private one is made (`self.registry`)."""
        self.registry = registry if registry is not None else CollectorRegistry()
        self._passes = Counter(f"{PREFIX}_operator_reconcile", "Passes by result.", ["result"], registry=self.registry)
        self._seconds = Histogram(
            f"{PREFIX}_operator_reconcile_duration_seconds", "Duration of one pass.", registry=self.registry
        )
        self._requests = Counter(
            f"{PREFIX}_operator_api_requests",
            "Requests to the API server; without a code no answer came.",
            ["verb", "code"],
            registry=self.registry,
        )
        self._restarts = Counter(
            f"{PREFIX}_restarts",
            "Restarts of pods, gangs, and processes in their pods.",
            [*_JOB, "role", "class"],
            registry=self.registry,
        )
        self._recovery = Histogram(
            f"{PREFIX}_recovery_seconds",
            "From detection of a failure to the first work after it.",
            ["role", "class"],
            buckets=RECOVERY_BUCKETS,
            registry=self.registry,
        )
        self._condition = Gauge(
            f"{PREFIX}_job_condition",
            "1 for the condition's status.",
            [*_JOB, "type", "status"],
            registry=self.registry,
        )
        self._pods = Gauge(
            f"{PREFIX}_pods", "Pods by role and state.", [*_JOB, "role", "state"], registry=self.registry
        )
        self._step = Gauge(f"{PREFIX}_step", "Last trained step.", _JOB, registry=self.registry)
        self._durable = Gauge(f"{PREFIX}_durable_step", "Last durable step.", _JOB, registry=self.registry)
        self._lag = Gauge(f"{PREFIX}_queue_lag_samples", "Samples that wait.", _JOB, registry=self.registry)
        self._resident = Gauge(f"{PREFIX}_store_resident_bytes", "Bytes in the store.", _JOB, registry=self.registry)

    def reconciled(self, result: str, seconds: float) -> None:
        """One pass ended: `done`, `conflict`, `transient` or `refused`."""
        self._passes.labels(result).inc()
        self._seconds.observe(seconds)

    def requested(self, verb: str, code: str) -> None:
        """One request to the API server ended with the HTTP status `code`."""
        self._requests.labels(verb, code).inc()

    def observe(self, job: JobIdentity, old: JobStatus, new: JobStatus) -> None:
        """Count what changed between two stored statuses, and set the gauges."""
        before = {_key(incident): incident for incident in old.incidents}
        for incident in new.incidents:
            if not incident.restart:
                continue
            known = before.get(_key(incident))
            role = incident.unit.rstrip("0123456789").rstrip("-")
            if known is None:
                self._restarts.labels(job.namespace, job.name, role, incident.klass).inc()
            if incident.seconds >= 0 and (known is None or known.open):
                self._recovery.labels(role, incident.klass).observe(incident.seconds)
        self._gauges(job, new)

    def _gauges(self, job: JobIdentity, status: JobStatus) -> None:
        where = (job.namespace, job.name)
        for condition in status.conditions:
            for value in ("True", "False", "Unknown"):
                self._condition.labels(*where, condition.type, value).set(condition.status == value)
        for role in status.roles:
            self._pods.labels(*where, role.name.value, "desired").set(role.desired)
            self._pods.labels(*where, role.name.value, "ready").set(
                role.ready if status.stage is not Stage.ENDED else 0
            )
        self._step.labels(*where).set(status.progress.step)
        self._durable.labels(*where).set(status.progress.durable_step)
        self._lag.labels(*where).set(status.progress.lag)
        self._resident.labels(*where).set(status.progress.resident_bytes)


def _key(incident: Incident) -> tuple[str, str, int, str]:
    return (incident.klass, incident.unit, incident.serial, incident.detected_time)
