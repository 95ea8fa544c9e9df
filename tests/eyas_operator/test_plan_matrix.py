"""Every failure class of every role in every stage under every state of its budget: what one plan makes of it.

`expected` says it in words of its own, from the table of failure classes and the order of the end; the plan has to
agree in all 1,400 cases, and to keep the standing rules in each of them.
"""

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from eyas_contract.states import Phase
from eyas_operator import names
from eyas_operator.actions import Create, Delete
from eyas_operator.api.status import JobStatus, Stage, Unit, dump_status
from eyas_operator.names import Role
from eyas_operator.plan import Plan, plan
from eyas_operator.policies.failures import COUNTED, GRACEFUL, FailureClass
from eyas_operator.world import World
from support.foreign import add_foreign_objects
from support.model_cluster import ModelCluster
from support.operator_world import ENVIRONMENT, SETTINGS, a_report, run

Failing = Callable[[ModelCluster, str], None]
OVER_ITS_LIMIT: Final = 'Usage of EmptyDir volume "tmp" exceeds the limit "20Gi". '
INNOCENT: Final = '{"exit_code": 137, "klass": "KilledWithGang", "message": "killed with its gang"}'
HANG: Final = '{"exit_code": 1, "klass": "Hang", "message": "no step for 60 s"}'


def _evicted(cluster: ModelCluster, name: str) -> None:
    cluster.end(name, 143)
    cluster.condition(name, "DisruptionTarget", "True", "EvictionByEvictionAPI")


def _over_its_limit(cluster: ModelCluster, name: str) -> None:
    cluster.end(name, 137)
    cluster.pod(name).status |= {"reason": "Evicted", "message": OVER_ITS_LIMIT}


def _lost(cluster: ModelCluster, name: str) -> None:
    cluster.pod(name).node = "unreachable"
    cluster.condition(name, "DisruptionTarget", "True", "DeletionByTaintManager")


def _deleted(cluster: ModelCluster, name: str) -> None:
    cluster.pod(name).deleted = "2030-01-01T00:00:00Z"


FAILURES: Final[dict[str, tuple[FailureClass, Failing]]] = {
    "exit 1": (FailureClass.CRASH, lambda cluster, name: cluster.end(name, 1)),
    "segfault": (FailureClass.CRASH, lambda cluster, name: cluster.end(name, 139)),
    "oom": (FailureClass.OUT_OF_MEMORY, lambda cluster, name: cluster.end(name, 137, reason="OOMKilled")),
    "hang": (FailureClass.HANG, lambda cluster, name: cluster.end(name, 1, message=HANG)),
    "xid": (FailureClass.HARDWARE, lambda cluster, name: cluster.end(name, 1, message="GPU 0: Xid 79")),
    "innocent": (FailureClass.KILLED_WITH_GANG, lambda cluster, name: cluster.end(name, 137, message=INNOCENT)),
    "exit 75": (FailureClass.TEMPORARY, lambda cluster, name: cluster.end(name, 75)),
    "exit 78": (FailureClass.CONFIG, lambda cluster, name: cluster.end(name, 78)),
    "exit 86": (FailureClass.FENCED, lambda cluster, name: cluster.end(name, 86)),
    "exit 0": (FailureClass.DONE, lambda cluster, name: cluster.end(name, 0)),
    "over its limit": (FailureClass.OUT_OF_STORAGE, _over_its_limit),
    "evicted": (FailureClass.DISRUPTED, _evicted),
    "node lost": (FailureClass.NODE_LOST, _lost),
    "deleted": (FailureClass.POD_DELETED, _deleted),
    "vanished": (FailureClass.POD_DELETED, lambda cluster, name: cluster.vanish(name)),
}
VICTIMS: Final = {
    Role.METADATA: "metadata-e1-o1",
    Role.STORE_MASTER: "store-master-o1",
    Role.STORE_NODE: "store-node-0-o1",
    Role.PRODUCER: "producer-1-o1",
    Role.CONSUMER: "consumer-1-a1",
}
RESTARTS_MAX: Final = 10
BUDGETS: Final[dict[str, Callable[[Unit], Unit]]] = {
    "fresh": lambda unit: unit,
    "one left": lambda unit: replace(unit, restarts_without_progress=RESTARTS_MAX - 1, pauses_without_progress=9),
    "spent": lambda unit: replace(unit, restarts_without_progress=RESTARTS_MAX, pauses_without_progress=10),
    "one OOM": lambda unit: replace(unit, restarts_without_progress=1, pauses_without_progress=1, out_of_memory=1),
}
STAGES: Final = (Stage.RUNNING, Stage.SUSPENDING, Stage.SUSPENDED, Stage.FINISHING, Stage.ENDED)
TRAIN: Final = (Role.PRODUCER, Role.CONSUMER)


def world_in(stage: Stage) -> ModelCluster:
    """A job in that stage whose pods are all still there."""
    cluster = ModelCluster().started()
    add_foreign_objects(cluster)
    if stage is Stage.FINISHING:
        cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100, resident_objects=4)
        cluster.reconcile()
    elif stage is Stage.SUSPENDING:
        cluster.edit(suspend=True)
        cluster.reconcile()
    elif stage in (Stage.SUSPENDED, Stage.ENDED):
        # The status is there first: its pods have yet to be deleted.
        changed = replace(cluster.status, stage=stage, stage_time=cluster.status.start_time)
        if stage is Stage.SUSPENDED:
            cluster.edit(suspend=True)
            changed = replace(changed, units=tuple(replace(unit, idle=True) for unit in changed.units))
        cluster.stored = dump_status(changed)
    for name in VICTIMS.values():
        cluster.pod(name).deleted = ""
    assert cluster.status.stage is stage
    return cluster


WORLDS: Final = {stage: world_in(stage) for stage in STAGES}


def expected(klass: FailureClass, role: Role, stage: Stage, budget: str) -> str:
    """`ignored`, `drained`, `replaced`, or the reason of `Failed`."""
    asleep = stage in (Stage.SUSPENDED, Stage.ENDED) or (role in TRAIN and stage is not Stage.RUNNING)
    if klass is FailureClass.CONFIG and (not asleep or (role is Role.CONSUMER and stage is not Stage.ENDED)):
        return "ConfigError"
    if asleep:
        return "ignored"
    if role is Role.CONSUMER and klass is FailureClass.DONE:
        return "ignored"  # One rank ended well; the others still work.
    if role is Role.CONSUMER and klass is FailureClass.KILLED_WITH_GANG:
        return "ignored"  # The one it died of may still speak.
    if role is Role.CONSUMER and klass in GRACEFUL:
        return "drained"
    if klass is FailureClass.OUT_OF_MEMORY and budget == "one OOM":
        return "OutOfMemory"
    return "RestartBudgetExhausted" if klass in COUNTED and budget == "spent" else "replaced"


def looked(cluster: ModelCluster) -> Plan:
    record = run(cluster.read_job("default", "demo"))
    assert record is not None
    world = World(children=run(cluster.list_children(record.identity)), report=cluster.report)
    first = plan(record, world, cluster.now, ENVIRONMENT, SETTINGS)
    assert first == plan(record, world, cluster.now, ENVIRONMENT, SETTINGS), "the same look, another decision"
    return first


def unit_in(status: JobStatus, role: Role) -> Unit:
    index = {Role.PRODUCER: 1}.get(role, 0)
    return next(unit for unit in status.units if (unit.role, unit.index) == (role, index))


def outcome(before: JobStatus, after: JobStatus, role: Role) -> str:
    failed = next((it for it in after.conditions if (it.type, it.status) == ("Failed", "True")), None)
    if failed is not None:
        return failed.reason
    if role is Role.CONSUMER and after.gang.draining_reason and not before.gang.draining_reason:
        return "drained"
    return "ignored" if unit_in(after, role).serial == unit_in(before, role).serial else "replaced"


@pytest.mark.parametrize(("stage", "role"), list(itertools.product(STAGES, VICTIMS)))
def test_each_failure_is_answered_as_its_class_stage_and_budget_say(stage: Stage, role: Role) -> None:
    stored = WORLDS[stage].status
    for name, (klass, fail) in FAILURES.items():
        cluster = copy.deepcopy(WORLDS[stage])
        fail(cluster, VICTIMS[role])
        for budget, spend in BUDGETS.items():
            case = f"{name}, {role}, {stage}, {budget}"
            before = replace(stored, units=tuple(map(spend, stored.units)))
            cluster.stored = dump_status(before)
            planned = looked(cluster)
            wanted = expected(klass, role, stage, budget)
            assert outcome(before, planned.status, role) == wanted, case
            check_rules(cluster, before, planned, case)
            check_account(before, planned.status, klass, role, wanted, case)


def check_account(before: JobStatus, after: JobStatus, klass: FailureClass, role: Role, what: str, case: str) -> None:
    """What is written down: an incident with its class, the counts of the budget, and nothing when it is ignored."""
    fresh = [it for it in after.incidents if it not in before.incidents and it.source == "Operator"]
    if what == "ignored":
        assert not fresh, case
        return
    assert [it.klass for it in fresh] == [klass.value], case
    assert fresh[0].counted is (klass in COUNTED), case
    old, new = unit_in(before, role), unit_in(after, role)
    if what == "replaced":
        assert new.serial == old.serial + 1, case
        assert new.restarts_without_progress == old.restarts_without_progress + (klass in COUNTED), case
        assert new.pauses_without_progress == old.pauses_without_progress + 1, case
        assert bool(new.not_before_time) is bool(old.pauses_without_progress), f"the first is immediate: {case}"


def check_rules(cluster: ModelCluster, before: JobStatus, planned: Plan, case: str) -> None:
    """Promises 9 and 10, for a single plan."""
    after = planned.status
    creates = [it.manifest for it in planned.actions if isinstance(it, Create) and it.manifest["kind"] == "Pod"]
    deletes = [it.target for it in planned.actions if isinstance(it, Delete)]
    assert after.attempt >= before.attempt, case
    identities = [names.pod_identity(pod["metadata"]["labels"]) for pod in creates]
    attempts = {it.serial for it in identities if it is not None and it.role is Role.CONSUMER}
    assert attempts <= {after.attempt}, f"more than one attempt: {case}"
    assert not {pod["metadata"]["name"] for pod in creates} & cluster.ever, f"a pod is made twice: {case}"
    if after.stage in (Stage.ENDED, Stage.SUSPENDED):
        assert not creates, f"a pod after the end: {case}"
    if before.stage is Stage.ENDED:
        assert replace(after, observed_generation=before.observed_generation) == before, f"the end was left: {case}"
    for target in deletes:
        thing = cluster.things[(target.kind, target.name)]
        owners = thing.manifest["metadata"].get("ownerReferences", [])
        assert thing.uid == target.uid, case
        assert any(owner["uid"] == cluster.body["metadata"]["uid"] for owner in owners), f"a foreign object: {case}"


def test_every_class_that_a_pod_can_end_with_is_in_the_matrix() -> None:
    elsewhere = {
        FailureClass.NOT_CREATED,  # nothing ended
        FailureClass.TEMPLATE_CHANGED,  # likewise
        FailureClass.RECOVERY_TIMEOUT,  # likewise
        FailureClass.EARLY_EXIT,  # of the whole gang
        FailureClass.METADATA_LOST,  # of a claim
        FailureClass.METADATA_DAMAGED,  # of one role: test_damaged_metadata
    }
    assert {klass for klass, _ in FAILURES.values()} == set(FailureClass) - elsewhere
