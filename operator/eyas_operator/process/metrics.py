"""Metrics of the process itself: queue, leadership, streams. Those of jobs are in `eyas_operator.telemetry`."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from eyas_operator.telemetry import PREFIX

_OPERATOR: Final = f"{PREFIX}_operator"


class ProcessMetrics:
    """Registered once per process."""

    def __init__(self, registry: CollectorRegistry, version: str, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds."""
        self._clock = clock
        self._registry = registry
        self._errors = Counter(
            f"{_OPERATOR}_reconcile_errors", "Passes that stopped early.", ["reason"], registry=registry
        )
        self._heard = Gauge(
            f"{_OPERATOR}_watch_last_event_timestamp_seconds",
            "When a stream last brought something of a kind.",
            ["kind"],
            registry=registry,
        )
        build = Gauge(f"{_OPERATOR}_build_info", "1 for the version that runs.", ["version"], registry=registry)
        build.labels(version).set(1)

    def failed(self, reason: str) -> None:
        """A pass stopped early: `conflict`, `transient`, `refused`, or the class of an error."""
        self._errors.labels(reason).inc()

    def heard(self, kind: str) -> None:
        """A stream brought an object of this kind."""
        self._heard.labels(kind).set(self._clock())

    def follow(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is asked for its value whenever somebody looks."""
        Gauge(f"{_OPERATOR}_{name}", text, registry=self._registry).set_function(value)
