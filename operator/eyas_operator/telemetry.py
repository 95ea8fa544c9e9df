"""The operator's metrics: one prefix, base units, bounded labels (no pod names, no UIDs, no messages).

Counters of failures come from differences between the stored status and the new one, so a pass that is repeated counts
nothing twice once its status was written; those of work are in `eyas_operator.totals`. The series of a job end with the
job.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from eyas_operator.api.incidents import Incident
from eyas_operator.api.status import JobStatus, Stage
from eyas_operator.names import JobIdentity
from eyas_operator.totals import LABELS, Totals, decimal

PREFIX: Final = "eyas"
RECOVERY_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600, 1800)
GANG: Final = "consumers"
"""Unit name of the consumers, who fail and come back together."""
_JOB: Final = LABELS


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
        self._info = Gauge(
            f"{PREFIX}_job_info", "1 for the stage that the job is in.", [*_JOB, "state"], registry=self.registry
        )
        self._detection = Histogram(
            f"{PREFIX}_failure_detection_seconds",
            "From the end of a container, as its node's clock says, to the pass that saw it.",
            ["role"],
            buckets=RECOVERY_BUCKETS,
            registry=self.registry,
        )
        self._totals = Totals(PREFIX, self.registry)
        self._downtime = Counter(
            f"{PREFIX}_downtime_seconds", "From failures of the ranks to the next step.", _JOB, registry=self.registry
        )
        self._goodput = self._gauge("goodput_ratio", "Share of the time in which new windows were trained.")
        self._step = self._gauge("step", "Last trained step.")
        self._durable = self._gauge("durable_step", "Last durable step.")
        self._lag = self._gauge("queue_lag_samples", "Samples in the store that the ranks have not trained.")
        self._resident = self._gauge("store_resident_bytes", "Bytes in the store.")
        self._dead = self._gauge("dead_letters", "Samples given up.")

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, _JOB, registry=self.registry)

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
                if role == GANG:
                    self._downtime.labels(job.namespace, job.name).inc(incident.seconds)
        self._totals.observe(job, new.progress)
        self._gauges(job, new)

    def detected(self, role: str, seconds: float) -> None:
        """A container's end was seen `seconds` after it."""
        self._detection.labels(role).observe(max(seconds, 0.0))

    def forget(self, namespace: str, name: str) -> None:
        """The job is gone, and so are its series. Its name may come back with counters at zero."""
        where = {"namespace": namespace, "job": name}
        for metric in (
            self._restarts, self._condition, self._pods, self._info, self._downtime, self._goodput,
            self._step, self._durable, self._lag, self._resident, self._dead,
        ):  # fmt: skip
            metric.remove_by_labels(where)
        self._totals.forget(namespace, name)

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
        for stage in Stage:
            if stage is not status.stage:
                self._info.remove(*where, stage.value)
        self._info.labels(*where, status.stage.value).set(1)
        self._dead.labels(*where).set(status.progress.dead_letters)
        self._step.labels(*where).set(status.progress.step)
        self._durable.labels(*where).set(status.progress.durable_step)
        self._lag.labels(*where).set(status.progress.lag)
        self._resident.labels(*where).set(status.progress.resident_bytes)
        goodput = decimal(status.progress.goodput)
        if goodput is None:
            self._goodput.remove(*where)
        else:
            self._goodput.labels(*where).set(goodput)


def _key(incident: Incident) -> tuple[str, str, int, str]:
    return (incident.klass, incident.unit, incident.serial, incident.detected_time)
