"""The plan over products of small domains: total, deterministic, idempotent, convergent, blind to foreign objects."""

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from eyas_contract.states import Phase
from eyas_operator.api.status import Stage, load_status
from eyas_operator.plan import plan
from eyas_operator.world import World
from support.foreign import add_foreign_objects, foreign_objects
from support.model_cluster import ModelCluster
from support.operator_world import ENVIRONMENT, SETTINGS, a_report, run

Change = Callable[[ModelCluster, str], None]


def _deleting(cluster: ModelCluster, hostname: str) -> None:
    cluster.pod(hostname).deleted = "2030-01-01T00:00:00Z"


def _lost(cluster: ModelCluster, hostname: str) -> None:
    cluster.pod(hostname).node = "unreachable"
    cluster.condition(hostname, "DisruptionTarget", "True", "DeletionByTaintManager")


def _waiting(cluster: ModelCluster, hostname: str) -> None:
    cluster.pod(hostname).status = {"phase": "Pending", "stuck": True}


PODS: Final[dict[str, Change]] = {
    "fine": lambda cluster, hostname: None,
    "waiting": _waiting,
    "crash": lambda cluster, hostname: cluster.end(hostname, 1),
    "oom": lambda cluster, hostname: cluster.end(hostname, 137, reason="OOMKilled"),
    "temporary": lambda cluster, hostname: cluster.end(hostname, 75),
    "fenced": lambda cluster, hostname: cluster.end(hostname, 86),
    "done": lambda cluster, hostname: cluster.end(hostname, 0),
    "vanished": lambda cluster, hostname: cluster.vanish(hostname),
    "deleting": _deleting,
    "lost": _lost,
}
REPORTS: Final = {
    "none": None,
    "running": a_report(acked_step=3, durable_step=2, samples_committed=30),
    "complete": a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100),
    "sweeping": a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100, resident_objects=4),
    "failed": a_report(phase=Phase.FAILED, failure="InputsChanged: x"),
    "ahead": a_report(acked_step=3, attempt=9),
    "older epoch": a_report(store_epoch=0, phase=Phase.FAILED, failure="InputsChanged: x"),
    "other job": a_report(job_uid="f" * 32, phase=Phase.COMPLETE),
}
SPECS: Final[dict[str, dict[str, object]]] = {
    "same": {},
    "suspend": {"suspend": True},
    "grow": {"producers": {"replicas": 3}, "consumers": {"replicas": 3, "processesPerPod": 1}},
    "shrink": {"producers": {"replicas": 1}, "consumers": {"replicas": 1, "processesPerPod": 2}},
    "invalid": {"producers": {"replicas": 0}},
}


@pytest.fixture(scope="module")
def base() -> ModelCluster:
    cluster = ModelCluster().started()
    add_foreign_objects(cluster)
    return cluster


def check(cluster: ModelCluster) -> None:
    """One world: decide twice, act, and come to rest at what the stage wants."""
    record = run(cluster.read_job("default", "demo"))
    assert record is not None
    report = cluster.report if cluster.reachable else None
    world = World(children=run(cluster.list_children(record.identity)), report=report)
    first = plan(record, world, cluster.now, ENVIRONMENT, SETTINGS)
    assert first == plan(record, world, cluster.now, ENVIRONMENT, SETTINGS)
    foreign = foreign_objects(cluster)
    for _ in range(7):
        cluster.reconcile()
        cluster.kubelet()
        cluster.now += 40
    before = cluster.writes
    cluster.reconcile()
    assert cluster.writes == before, "at rest nothing is written"
    assert foreign_objects(cluster) == foreign
    settled(cluster)


def settled(cluster: ModelCluster) -> None:
    status = load_status(cluster.stored)
    if cluster.verdict("Accepted")[0] == "False":
        return
    alive = {role: cluster.names_of(role) for role in ("producer", "consumer", "metadata", "store-node")}
    if status.stage in (Stage.ENDED, Stage.SUSPENDED):
        reachable = [name for names in alive.values() for name in names if cluster.pod(name).node != "unreachable"]
        assert reachable == []
        return
    for unit in status.units:
        if unit.idle or unit.role == "consumer":
            continue
        mine = [name for name in alive.get(unit.role.value, []) if name.endswith(f"-{unit.index}-o{unit.serial}")]
        if unit.role in ("producer", "store-node"):
            assert len(mine) == 1
    attempt = [name for name in alive["consumer"] if name.endswith(f"-a{status.attempt}")]
    assert len(attempt) in (0, status.gang.replicas)


def rows(*domains: list[str]) -> Iterator[tuple[str, ...]]:
    return itertools.product(*domains)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(PODS, 2)))
def test_any_two_states_of_the_gang(base: ModelCluster, one: str, other: str) -> None:
    cluster = copy.deepcopy(base)
    PODS[one](cluster, "consumer-0-a1")
    PODS[other](cluster, "consumer-1-a1")
    check(cluster)


@pytest.mark.parametrize(("report", "edit"), list(rows(list(REPORTS), list(SPECS))))
def test_any_report_with_any_edit(base: ModelCluster, report: str, edit: str) -> None:
    cluster = copy.deepcopy(base)
    cluster.report = REPORTS[report]
    cluster.edit(**SPECS[edit])
    check(cluster)


@pytest.mark.slow
@pytest.mark.parametrize("report", ["none", "running", "complete", "ahead"])
@pytest.mark.parametrize("edit", ["same", "suspend", "shrink"])
def test_whole_product(base: ModelCluster, report: str, edit: str) -> None:
    some = ["fine", "crash", "lost"]
    for consumer, producer, metadata, claim in rows(list(PODS), some, [*some, "vanished"], ["kept", "gone"]):
        cluster = copy.deepcopy(base)
        PODS[consumer](cluster, "consumer-1-a1")
        PODS[producer](cluster, "producer-0-o1")
        PODS[metadata](cluster, "metadata-e1-o1")
        if claim == "gone":
            cluster.delete_claim("demo-1c9e0b52-metadata-e1")
        cluster.report = REPORTS[report]
        cluster.edit(**SPECS[edit])
        check(cluster)
