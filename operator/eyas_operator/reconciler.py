"""Shell: one level-triggered pass over one job, the same for every backend.

A pass reads everything it decides from, never trusts an event or a cache, and is safe to repeat or to abandon at any
point. Who calls it, and when, is the backend's business: on events, and after `Outcome.wake_seconds` in any case.
"""

from collections.abc import Callable
from dataclasses import dataclass

from eyas_contract.errors import Conflict, Transient
from eyas_operator.api.status import JobStatus, Stage, load_status
from eyas_operator.apply import carry_out
from eyas_operator.cluster import Cluster
from eyas_operator.environment import Environment
from eyas_operator.plan import Plan, plan
from eyas_operator.settings import Settings
from eyas_operator.telemetry import Telemetry
from eyas_operator.world import JobRecord, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a pass came to."""

    status: JobStatus | None
    """As written; None when the job does not exist (any more)."""
    wake_seconds: float
    acted: bool = False
    error: str = ""
    """Why the pass stopped early; it will be made again."""


class Reconciler:
    """Makes passes. Keeps no state that a pass depends on; a new one goes on where an old one stopped."""

    def __init__(
        self,
        cluster: Cluster,
        environment: Environment,
        settings: Settings,
        clock: Callable[[], float],
        telemetry: Telemetry,
    ) -> None:
        """`clock` gives Unix seconds."""
        self._cluster = cluster
        self._environment = environment
        self._settings = settings
        self._clock = clock
        self._telemetry = telemetry

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        """One pass. Raises nothing that a repetition could heal."""
        started = self._clock()
        try:
            outcome = await self._pass(namespace, name)
        except Conflict as error:
            outcome = Outcome(status=None, wake_seconds=self._settings.conflict_seconds, error=f"conflict: {error}")
        except Transient as error:
            outcome = Outcome(status=None, wake_seconds=error.retry_after_seconds, error=f"transient: {error}")
        self._telemetry.reconciled(outcome.error.partition(":")[0] or "done", self._clock() - started)
        return outcome

    async def _pass(self, namespace: str, name: str) -> Outcome:
        record = await self._cluster.read_job(namespace, name)
        if record is None:
            return Outcome(status=None, wake_seconds=self._settings.resync_seconds)
        planned = plan(record, await self._look(record), self._clock(), self._environment, self._settings)
        await carry_out(self._cluster, record, planned)
        self._telemetry.observe(record.identity, load_status(record.status), planned.status)
        return Outcome(status=planned.status, wake_seconds=self._wake(planned), acted=bool(planned.actions))

    async def _look(self, record: JobRecord) -> World:
        """Children first, then the report: what the service says is never older than the pods beside it."""
        children = await self._cluster.list_children(record.identity)
        stage = load_status(record.status).stage
        asked = stage not in (Stage.ENDED, Stage.SUSPENDED) and bool(children.pods)
        report = await self._cluster.read_report(record.identity) if asked else None
        return World(children=children, report=report)

    def _wake(self, planned: Plan) -> float:
        """After acting, look again soon: what was made has to be seen."""
        if planned.actions:
            return min(planned.wake_seconds, self._settings.conflict_seconds)
        return planned.wake_seconds
