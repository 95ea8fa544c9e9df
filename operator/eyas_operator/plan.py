"""`plan`: what to do with one job now. The heart of the operator, and pure.

`plan(record, world, now)` folds the world, advances the status by the policies in a fixed order, and computes the
actions that the new status implies. The shell writes the status first (guarded by the resource version) and acts
afterwards; a pass that dies in between is made again and comes to the same actions, because they follow from the
status and the world alone. A pass at rest changes nothing and does nothing.
"""

from dataclasses import dataclass, replace
from typing import Final

from eyas_contract.errors import UserError
from eyas_operator import actions as acting
from eyas_operator import names
from eyas_operator.actions import Action, DeleteJob, SetFinalizer
from eyas_operator.api.job import JobSpec
from eyas_operator.api.parse import parse
from eyas_operator.api.rules import IMMUTABLE, OPTIONAL, immutable_digest
from eyas_operator.api.status import JobStatus, Stage, load_status
from eyas_operator.cluster import Event
from eyas_operator.desired import Build
from eyas_operator.desired.build import shares_a_pool
from eyas_operator.environment import Environment
from eyas_operator.errors import SpecError
from eyas_operator.events import events
from eyas_operator.observe import observe
from eyas_operator.policies import budget, claims, cleanup, epochs, gang, incidents, lifecycle, release, strikes, units
from eyas_operator.policies.moment import Moment, Policy
from eyas_operator.settings import Settings
from eyas_operator.status import rejected, summarise
from eyas_operator.world import JobRecord, World, seconds_of, time_of

POLICIES: Final[tuple[Policy, ...]] = (
    lifecycle.begin,
    epochs.metadata_claim,
    epochs.checkpoints_claim,
    lifecycle.claims_kept,
    budget.reset_on_progress,
    lifecycle.service_verdict,
    lifecycle.suspension,
    units.schedule,
    units.sightings,
    gang.watch_gang,
    units.replace_failed,
    lifecycle.finish,
    lifecycle.deadlines,
    release.release,
    units.schedule,
    units.launch,
    incidents.advance,
    strikes.decay,
)
"""In the order of application; what is decided early (the end) rules what comes late (launches)."""
WAKE_SECONDS_MIN: Final = 0.05
ENDED_SECONDS: Final = 3600.0
"""A job that has ended and been cleared away is looked at so often, unless something happens to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one pass does."""

    status: JobStatus
    changed: bool
    """The status has to be written, before any action."""
    actions: tuple[Action, ...]
    events: tuple[Event, ...]
    wake_seconds: float
    """Look again after this time, whatever happens."""
    decides: bool = True
    """It acts, or writes more than how far the job is: such a plan is carried out only if it was made from a fresh
    look."""


def plan(record: JobRecord, world: World, now: float, environment: Environment, settings: Settings) -> Plan:
    """Decide. Total: a spec that cannot work becomes a condition, never an exception."""
    stored = load_status(record.status)
    owed = names.FINALIZER in record.finalizers
    if record.deleting and not owed:
        return _plan(stored, stored, (), settings.resync_seconds)
    try:
        spec = parse(record.body).spec
    except SpecError as error:
        if record.deleting:
            # Nobody can say any more where its features are: it is let go.
            return _plan(stored, stored, (SetFinalizer(present=False),), settings.resync_seconds)
        return _reject(record, stored, now, settings, "InvalidSpec", "; ".join(error.lines))
    moment = _moment(record, world, spec, now, settings)
    if owed and (record.deleting or stored.stage is Stage.ENDED):
        return _swept(moment, stored, environment, deleting=record.deleting)
    if stored.stage is Stage.ENDED:
        return _ended(moment, stored)
    if stored.spec_digest and stored.spec_digest != immutable_digest(spec):
        message = f"{', '.join(IMMUTABLE)} and {', '.join(OPTIONAL)} cannot change; make a new job"
        return _reject(record, stored, now, settings, "ImmutableFieldChanged", message)
    problem = claims.claim_problem(moment)
    if problem:
        return _reject(record, stored, now, settings, "CheckpointsNotShared", problem)
    status = stored
    for policy in POLICIES:
        status = policy(moment, status)
    status = summarise(moment, status, stored)
    build = Build(job=moment.job, spec=spec, status=status, environment=environment, settings=settings)
    try:
        todo = acting.actions(moment, status, build)
    except UserError as error:
        return _reject(record, stored, now, settings, "InvalidSpec", str(error))
    if shares_a_pool(spec) and not owed and status.stage is not Stage.ENDED:
        todo = (SetFinalizer(present=True), *todo)
    return _plan(stored, status, todo, wake_seconds(moment, status))


def _moment(record: JobRecord, world: World, spec: JobSpec, now: float, settings: Settings) -> Moment:
    return Moment(
        job=record.identity,
        generation=record.generation,
        spec=spec,
        settings=settings,
        observed=observe(record.identity, world),
        now=now,
    )


def _plan(stored: JobStatus, status: JobStatus, todo: tuple[Action, ...], wake: float) -> Plan:
    return Plan(
        status=status,
        changed=status != stored,
        actions=todo,
        events=events(stored, status),
        wake_seconds=max(WAKE_SECONDS_MIN, wake),
        decides=bool(todo) or replace(status, progress=stored.progress, checkpoint=stored.checkpoint) != stored,
    )


def _reject(record: JobRecord, stored: JobStatus, now: float, settings: Settings, reason: str, message: str) -> Plan:
    """Nothing is started and nothing is stopped: the spec is repaired by whoever broke it."""
    status = rejected(stored, reason, message, time_of(now), record.generation)
    return _plan(stored, status, (), settings.resync_seconds)


def _ended(moment: Moment, stored: JobStatus) -> Plan:
    """Complete and Failed are never left: only pods are removed, and the job itself when its time is over."""
    todo: tuple[Action, ...] = acting.ended(moment)
    if lifecycle.expired(moment, stored):
        todo = (*todo, DeleteJob())
    status = replace(stored, observed_generation=moment.generation)
    return _plan(stored, status, todo, _ended_wake(moment, stored, busy=bool(todo)))


def _swept(moment: Moment, stored: JobStatus, environment: Environment, *, deleting: bool) -> Plan:
    """The last sweep of a shared pool; then the finalizer goes, and with it a job that is being deleted."""
    status = cleanup.advance(moment, replace(stored, observed_generation=moment.generation))
    if stored.stage is not Stage.ENDED:
        status = replace(status, state="Deleting")
    build = Build(job=moment.job, spec=moment.spec, status=status, environment=environment, settings=moment.settings)
    try:
        todo = acting.swept(moment, stored, status, build)
    except UserError:
        # Paths on no volume: it never started.
        todo = (SetFinalizer(present=False),)
    if not deleting and lifecycle.expired(moment, stored):
        todo = (*todo, DeleteJob())
    return _plan(stored, status, todo, moment.settings.resync_seconds)


def _ended_wake(moment: Moment, stored: JobStatus, *, busy: bool) -> float:
    ttl = moment.spec.ttl_seconds_after_finished
    if busy:
        return moment.settings.resync_seconds
    if ttl is None:
        return ENDED_SECONDS
    return min(ttl - moment.since(stored.completion_time), ENDED_SECONDS)


def wake_seconds(moment: Moment, status: JobStatus) -> float:
    """Seconds to the next moment at which time alone changes the decision, at most the resync time."""
    times = [moment.now + moment.settings.resync_seconds]
    times += [seconds_of(unit.not_before_time) for unit in status.units if unit.not_before_time and not unit.launched]
    if release.released(moment, status):
        times.append(release.ends(moment, status))
    return min(times) - moment.now
