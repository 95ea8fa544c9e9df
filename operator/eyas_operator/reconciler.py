"""Shell: one level-triggered pass over one job, the same for every backend.

A pass that decides something reads everything it decides from, never trusts an event or a cache, and is safe to repeat
or to abandon at any point. From a glimpse of what was last seen a pass may conclude only that there is nothing to do.
Who calls it, and when, is the backend's business: on events, and after `Outcome.wake_seconds` in any case.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from eyas_contract.errors import Conflict, Transient
from eyas_operator.api.status import JobStatus, Stage, load_status
from eyas_operator.apply import carry_out
from eyas_operator.cluster import Cluster
from eyas_operator.detection import detections
from eyas_operator.environment import Environment
from eyas_operator.errors import Refused
from eyas_operator.observe import metadata_pod
from eyas_operator.plan import Plan, plan
from eyas_operator.policies.claims import named_checkpoints
from eyas_operator.refusals import Refusals
from eyas_operator.settings import Settings
from eyas_operator.telemetry import Telemetry
from eyas_operator.world import Children, Claim, JobRecord, World


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
    """Makes passes. Keeps no state that a pass depends on; a new one goes on where an old one stopped.

    It remembers what the cluster refused, to tell people in the job's conditions; a new one learns it again.
    """

    def __init__(
        self,
        cluster: Cluster,
        environment: Environment,
        settings: Settings,
        clock: Callable[[], float],
        telemetry: Telemetry,
        turns: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        """`clock` gives Unix seconds. `turns` is entered for each plan, where passes over many jobs share a loop."""
        self._cluster = cluster
        self._environment = environment
        self._settings = settings
        self._clock = clock
        self._telemetry = telemetry
        self._turns: AbstractAsyncContextManager[object] = turns or nullcontext()
        self._refusals = Refusals()

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        """One pass. Raises nothing that a repetition could heal."""
        started = self._clock()
        try:
            outcome = await self._pass(namespace, name)
        except Conflict as error:
            outcome = Outcome(status=None, wake_seconds=self._settings.conflict_seconds, error=f"conflict: {error}")
        except Transient as error:
            outcome = Outcome(status=None, wake_seconds=error.retry_after_seconds, error=f"transient: {error}")
        except Refused as error:
            outcome = Outcome(status=None, wake_seconds=self._settings.refused_seconds, error=f"refused: {error}")
        self._telemetry.reconciled(outcome.error.partition(":")[0] or "done", self._clock() - started)
        return outcome

    async def _pass(self, namespace: str, name: str) -> Outcome:
        glimpse = self._cluster.glance(namespace, name)
        if glimpse is not None:
            planned = await self._plan(glimpse.record, glimpse.children)
            if not planned.decides:
                return await self._carry_out(glimpse.record, glimpse.children, planned)
        record = await self._cluster.read_job(namespace, name)
        if record is None:
            return Outcome(status=None, wake_seconds=self._settings.resync_seconds)
        children = await self._cluster.list_children(record.identity)
        named = named_checkpoints(record.body)
        claim = await self._cluster.read_claim(namespace, named) if named else None
        planned = await self._plan(record, children, claim)
        return await self._carry_out(record, children, planned)

    async def _plan(self, record: JobRecord, children: Children, claim: Claim | None = None) -> Plan:
        """The report comes after the children: what the service says is never older than the pods beside it."""
        stage = load_status(record.status).stage
        service = metadata_pod(record.identity, children) if stage not in (Stage.ENDED, Stage.SUSPENDED) else None
        report = await self._cluster.read_report(record.identity, service) if service is not None else None
        refusal = self._refusals.of(record)
        stale = service is not None and self._cluster.reader_is_stale(record.identity)
        world = World(children=children, report=report, refusal=refusal, reader_stale=stale, named_claim=claim)
        async with self._turns:
            return plan(record, world, self._clock(), self._environment, self._settings)

    async def _carry_out(self, record: JobRecord, children: Children, planned: Plan) -> Outcome:
        job, wake = record.identity, self._wake(planned)
        try:
            await carry_out(
                self._cluster,
                record,
                planned,
                lambda: self._measure(record, children, planned.status),
                lambda subject: self._refusals.taken(job.uid, subject),
            )
        except Refused as error:
            news = self._refusals.refused(record, error)
            # The next pass writes it into the status; after that there is time.
            wake = self._settings.conflict_seconds if news else self._settings.refused_seconds
            return Outcome(status=None, wake_seconds=wake, acted=True, error=f"refused: {error}")
        return Outcome(status=planned.status, wake_seconds=wake, acted=bool(planned.actions))

    def _measure(self, record: JobRecord, children: Children, status: JobStatus) -> None:
        """Also for a pass that fails after this: the next one finds the status written and nothing new in it."""
        before = load_status(record.status)
        self._telemetry.observe(record.identity, before, status)
        for role, seconds in detections(before, status, children, self._clock()):
            self._telemetry.detected(role, seconds)

    def _wake(self, planned: Plan) -> float:
        """After acting, look again soon: what was made has to be seen."""
        if planned.actions:
            return min(planned.wake_seconds, self._settings.conflict_seconds)
        return planned.wake_seconds
