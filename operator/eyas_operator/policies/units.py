"""Units: which pods there should be, what became of them, and under which number they are made again.

A serial is written into the status before a pod of it is made, and a pod that may have existed is never made a second
time: what is missing gets the next serial. So no two pods ever share an identity, whatever is killed and whenever.
"""

from dataclasses import replace

from eyas_operator.api.rules import template_digest
from eyas_operator.api.status import JobStatus, Stage, Unit
from eyas_operator.desired.build import own_store_nodes, producer_count
from eyas_operator.names import Role
from eyas_operator.observe import PodState, PodView
from eyas_operator.policies import incidents, strikes
from eyas_operator.policies.budget import next_serial, restart
from eyas_operator.policies.failures import Failure, FailureClass
from eyas_operator.policies.moment import CONFIG_ERROR, Moment, fail, members, reason_in, unit_name, with_unit
from eyas_operator.policies.release import released
from eyas_operator.world import seconds_of

Key = tuple[Role, int]
_SERVING = (Stage.RUNNING, Stage.SUSPENDING, Stage.FINISHING)


def wanted(moment: Moment, status: JobStatus) -> frozenset[Key]:
    """Units that should have pods in this stage."""
    keys: set[Key] = set()
    if status.stage in _SERVING:
        keys.add((Role.METADATA, 0))
        nodes = own_store_nodes(moment.spec)
        if nodes is not None:
            keys.add((Role.STORE_MASTER, 0))
            keys |= {(Role.STORE_NODE, index) for index in range(nodes.replicas)}
    if status.stage is Stage.RUNNING:
        if released(moment, status):
            return frozenset(keys)
        keys |= {(Role.PRODUCER, index) for index in range(producer_count(moment.spec))}
        if not status.gang.draining_reason:
            keys.add((Role.CONSUMER, 0))
    return frozenset(keys)


def schedule(moment: Moment, status: JobStatus) -> JobStatus:
    """Put units to sleep that should have no pods; wake the others under a new serial."""
    keys = wanted(moment, status)
    present = {(unit.role, unit.index): unit for unit in status.units}
    for key, unit in present.items():
        if key not in keys and not unit.idle:
            status = with_unit(status, replace(unit, idle=True, not_before_time=""))
    for key in sorted(keys, key=lambda key: (key[0].value, key[1])):
        unit = present.get(key, Unit(role=key[0], index=key[1], serial=0, idle=True))
        if unit.idle:
            status = _woken(moment, status, unit)
    return status


def _woken(moment: Moment, status: JobStatus, unit: Unit) -> JobStatus:
    awake = replace(unit, serial=next_serial(moment, unit), idle=False, launched=False, seen=())
    if unit.role is Role.CONSUMER:
        status = with_present_shape(moment, status)
    return with_unit(status, awake)


def with_present_shape(moment: Moment, status: JobStatus) -> JobStatus:
    """The gang's next attempt has the shape that the spec asks for now."""
    shape = replace(
        status.gang,
        replicas=moment.spec.consumers.replicas,
        processes_per_pod=moment.spec.consumers.processes_per_pod,
        draining_reason="",
        draining_time="",
    )
    return replace(status, gang=shape)


def sightings(moment: Moment, status: JobStatus) -> JobStatus:
    """Remember which pods of each unit were seen: one of them that is missing later has vanished."""
    for unit in status.units:
        found = {
            identity.index for identity in members(status, unit) if identity in moment.observed.pods and not unit.idle
        }
        if not found <= set(unit.seen):
            status = with_unit(status, replace(unit, launched=True, seen=tuple(sorted({*unit.seen, *found}))))
    return status


def replace_failed(moment: Moment, status: JobStatus) -> JobStatus:
    """Give every single-pod unit whose pod ended, vanished or is going away its next serial."""
    for unit in status.units:
        if unit.role is Role.CONSUMER or unit.idle or status.stage is Stage.ENDED:
            continue
        failure = failure_of(moment, status, unit)
        if failure is not None and not capture_is_over(moment, unit, failure):
            status = recover(moment, status, unit, failure)
    return status


def failure_of(moment: Moment, status: JobStatus, unit: Unit) -> Failure | None:
    """Why the only pod of `unit` has to be made again; None while it is fine or not made yet."""
    view = moment.observed.pods.get(members(status, unit)[0])
    if view is not None:
        return view.failure or outdated(moment, unit, view)
    if not unit.launched:
        return None
    if unit.seen:
        return Failure(klass=FailureClass.POD_DELETED, message="the pod vanished")
    return Failure(klass=FailureClass.NOT_CREATED, message="the pod was never seen")


def outdated(moment: Moment, unit: Unit, view: PodView) -> Failure | None:
    """A pod that waits to run as the spec no longer says: nothing is lost by making it again, and it may repair it.

    A pod that runs keeps what it was made with until it is replaced for a reason of its own.
    """
    if view.state is not PodState.WAITING or view.template in ("", template_digest(moment.spec, unit.role)):
        return None
    message = f"its template was changed before it ran ({view.waiting})"
    return Failure(klass=FailureClass.TEMPLATE_CHANGED, message=message, node=view.node)


def capture_is_over(moment: Moment, unit: Unit, failure: Failure) -> bool:
    """A producer that ended well is left alone while no sample waits to be captured (again)."""
    report = moment.observed.report
    if failure.klass is not FailureClass.DONE or unit.role is not Role.PRODUCER or report is None:
        return False
    captured = report.samples_committed + report.samples_dead >= report.total_samples > 0
    return captured and report.samples_lost == 0


def recover(moment: Moment, status: JobStatus, unit: Unit, failure: Failure) -> JobStatus:
    """One way for every failure: incident, strike, budget, next serial; a configuration error ends the job."""
    if failure.klass is not FailureClass.NOT_CREATED:
        status = incidents.opened(moment, status, unit, failure)
        status = strikes.struck(moment, status, failure)
    if failure.klass is FailureClass.CONFIG:
        reason, message = reason_in(failure.message, CONFIG_ERROR)
        return fail(moment, status, reason, f"{unit_name(unit)}: {message}")
    return restart(moment, status, unit, failure)


def launch(moment: Moment, status: JobStatus) -> JobStatus:
    """Mark every unit whose pods are made after this status is written."""
    for unit in status.units:
        if not unit.idle and not unit.launched and may_start(moment, status, unit):
            status = with_unit(status, replace(unit, launched=True))
    return status


def may_start(moment: Moment, status: JobStatus, unit: Unit) -> bool:
    """Its backoff is over, and a metadata pod has a claim that was seen."""
    if unit.not_before_time and moment.now < seconds_of(unit.not_before_time):
        return False
    return unit.role is not Role.METADATA or bool(status.metadata.claim_uid)


def alive_train_pods(moment: Moment) -> list[str]:
    """Names of producer and consumer pods whose processes may still run."""
    return [view.name for view in moment.observed.of_role(Role.PRODUCER, Role.CONSUMER) if view.alive]


def ready_members(moment: Moment, status: JobStatus, unit: Unit) -> int:
    """Pods of the present serial that are ready and not going away."""
    views = [moment.observed.pods.get(identity) for identity in members(status, unit)]
    return sum(1 for view in views if view is not None and view.state is PodState.READY and not view.deleting)
