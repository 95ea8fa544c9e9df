"""Counters of a job's work: what its metadata service counts, as series that only go up.

A series begins with what the service has counted so far, so that a new process goes on where the former one was. The
service's numbers may fall: at a way back to a checkpoint, at a restart of the service, with a new database. A fall is
never counted; what follows it is counted either from where it fell to, or only beyond the highest number so far.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from eyas_operator.api.progress import Progress
from eyas_operator.names import JobIdentity

LABELS: Final = ("namespace", "job")


@dataclass(frozen=True, slots=True)
class Total:
    """One counter."""

    name: str
    text: str
    value: Callable[[Progress], float | None]
    """None: the service does not tell."""
    beyond_highest: bool = False
    """What the service counts again after a fall is the same once more, and counts only beyond the highest number."""


TOTALS: Final = (
    Total("samples_produced", "Samples captured at least once.", lambda it: it.produced, beyond_highest=True),
    Total("samples_acked", "Samples trained at least once.", lambda it: it.acked, beyond_highest=True),
    Total("samples_lost", "Samples whose features were lost and captured again.", lambda it: it.lost),
    Total("samples_replayed", "Samples trained again after ways back to a checkpoint.", lambda it: it.replayed),
    Total(
        "samples_applied_twice",
        "Must stay 0: samples applied twice along the line of checkpoints.",
        lambda it: it.applied_twice,
        beyond_highest=True,
    ),
    Total(
        "samples_missing",
        "Must stay 0: samples up to the durable step that are neither trained nor dead.",
        lambda it: it.missing,
        beyond_highest=True,
    ),
    Total("lost_work_seconds", "What the ranks took to train windows again.", lambda it: decimal(it.lost_work_seconds)),
)


class Totals:
    """The counters of all jobs."""

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self._counters = {
            total.name: Counter(f"{prefix}_{total.name}", total.text, LABELS, registry=registry) for total in TOTALS
        }
        self._told: dict[tuple[str, str], tuple[str, dict[str, float]]] = {}
        """Of each job its UID, and what its series were raised to."""

    def observe(self, job: JobIdentity, progress: Progress) -> None:
        """Count what the service told beyond what it had told before."""
        where = (job.namespace, job.name)
        uid, told = self._told.get(where, ("", {}))
        if uid != job.uid:
            told = {}
        for total in TOTALS:
            value = total.value(progress)
            if value is None:
                continue
            before = told.get(total.name, 0.0)
            self._counters[total.name].labels(*where).inc(max(0.0, value - before))
            told[total.name] = max(before, value) if total.beyond_highest else value
        self._told[where] = (job.uid, told)

    def forget(self, namespace: str, name: str) -> None:
        """The job is gone, and so are its series."""
        self._told.pop((namespace, name), None)
        for counter in self._counters.values():
            counter.remove_by_labels({"namespace": namespace, "job": name})


def decimal(text: str) -> float | None:
    """A number that a status holds as text; None where it holds none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
