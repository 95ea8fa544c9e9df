"""The operator dies before each of its effects in turn; another takes over and comes to the same end.

Numbers may differ (a serial that may have been used is skipped); what runs, and how it ended, may not.
"""

import copy
from collections.abc import Callable

import pytest

from eyas_contract.states import Phase
from support.model_cluster import ModelCluster, OperatorDied
from support.operator_world import a_report

Scenario = Callable[[ModelCluster], None]


def _complete(cluster: ModelCluster) -> None:
    cluster.report = a_report(phase=Phase.COMPLETE, acked_step=100, durable_step=100)


def _fail(cluster: ModelCluster) -> None:
    cluster.end("producer-0-o1", 78)


def _kill_all(cluster: ModelCluster) -> None:
    for (kind, _), thing in list(cluster.things.items()):
        if kind == "Pod":
            cluster.end(thing.manifest["spec"]["hostname"], 137)


SCENARIOS: dict[str, Scenario] = {
    "producer dies": lambda cluster: cluster.end("producer-0-o1", 1),
    "gang dies": lambda cluster: cluster.end("consumer-1-a1", 1),
    "gang drains": lambda cluster: cluster.end("consumer-1-a1", 75),
    "metadata dies": lambda cluster: cluster.vanish("metadata-e1-o1"),
    "claim is lost": lambda cluster: cluster.delete_claim("demo-1c9e0b52-metadata-e1"),
    "metadata is damaged": lambda cluster: cluster.end("metadata-e1-o1", 65),
    "master dies": lambda cluster: cluster.end("store-master-o1", 137),
    "everything dies": _kill_all,
    "resize": lambda cluster: cluster.edit(
        consumers={"replicas": 3, "processesPerPod": 1}, producers={"replicas": 1}
    ),
    "suspend": lambda cluster: cluster.edit(suspend=True),
    "complete": _complete,
    "configuration error": _fail,
}  # fmt: skip


def shape(cluster: ModelCluster) -> dict[str, object]:
    """What must be equal at the end: pods without their numbers, other objects, stage, conditions."""
    pods = sorted(
        thing.manifest["spec"]["hostname"].rsplit("-", 1)[0]
        for thing in cluster.things.values()
        if thing.kind == "Pod" and not thing.deleted
    )
    status = cluster.status
    conditions = {condition.type: condition.status for condition in status.conditions}
    claims = sorted(name for kind, name in cluster.things if kind == "PersistentVolumeClaim")
    kinds = sorted(name for kind, name in cluster.things if kind in ("Service", "NetworkPolicy", "PodDisruptionBudget"))
    return {"pods": pods, "stage": status.stage, "conditions": conditions, "claims": claims, "kinds": kinds}


def to_rest(cluster: ModelCluster, deaths: int = 0) -> int:
    """Pass until nothing is written any more; returns how often the operator died."""
    for _ in range(30):
        before = cluster.writes
        try:
            cluster.reconcile()
        except OperatorDied:
            deaths += 1
            continue
        cluster.kubelet()
        cluster.now += 70
        if cluster.writes == before and not any(thing.deleted for thing in cluster.things.values()):
            return deaths
    raise AssertionError("the operator does not come to rest")


@pytest.fixture(scope="module")
def base() -> ModelCluster:
    return ModelCluster().started()


@pytest.mark.parametrize("name", SCENARIOS)
def test_death_before_any_effect_changes_nothing_in_the_end(base: ModelCluster, name: str) -> None:
    clean = copy.deepcopy(base)
    SCENARIOS[name](clean)
    started = clean.writes
    to_rest(clean)
    effects = clean.writes - started
    assert effects > 0
    for point in range(effects):
        cluster = copy.deepcopy(base)
        SCENARIOS[name](cluster)
        cluster.die_before = point
        assert to_rest(cluster) == 1
        assert shape(cluster) == shape(clean), f"died before effect {point} of {effects}"


def test_death_before_any_effect_of_the_first_start() -> None:
    clean = ModelCluster()
    to_rest(clean)
    effects = clean.writes
    for point in range(effects):
        cluster = ModelCluster()
        cluster.die_before = point
        assert to_rest(cluster) == 1
        assert shape(cluster) == shape(clean), f"died before effect {point} of {effects}"


def test_operator_that_never_lives_longer_than_seven_effects_still_gets_there(base: ModelCluster) -> None:
    cluster = copy.deepcopy(base)
    cluster.end("consumer-0-a1", 1)
    deaths = 0
    for _ in range(200):
        cluster.die_before = 7
        try:
            before = cluster.writes
            cluster.reconcile()
        except OperatorDied:
            deaths += 1
        cluster.kubelet()
        cluster.now += 1
        if cluster.writes == before:
            break
    assert deaths >= 1
    assert cluster.names_of("consumer") == [
        f"consumer-0-a{cluster.status.attempt}",
        f"consumer-1-a{cluster.status.attempt}",
    ]


def test_busy_api_server_delays_and_breaks_nothing(base: ModelCluster) -> None:
    cluster = copy.deepcopy(base)
    cluster.end("consumer-0-a1", 1)
    cluster.fail_creates = 3
    for _ in range(12):
        outcome = cluster.reconcile()
        cluster.kubelet()
        cluster.now += 5
    assert outcome.error == ""
    assert len(cluster.names_of("consumer")) == 2


def test_late_operator_whose_view_is_old_writes_nothing_and_makes_nothing(base: ModelCluster) -> None:
    cluster = copy.deepcopy(base)
    cluster.end("producer-0-o1", 1)
    original = cluster.read_job

    async def stale(namespace: str, name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
        record = await original(namespace, name)
        cluster.version += 1
        return record

    cluster.read_job = stale  # type: ignore[method-assign]
    before = sorted(cluster.things)
    outcome = cluster.reconcile()
    assert outcome.error.startswith("conflict")
    assert sorted(cluster.things) == before


def test_status_that_was_wiped_is_rebuilt_above_every_number_in_the_world(base: ModelCluster) -> None:
    cluster = copy.deepcopy(base)
    for _ in range(3):
        cluster.end(f"consumer-0-a{cluster.status.attempt}", 1)
        cluster.now += 70
        to_rest(cluster)
    cluster.delete_claim("demo-1c9e0b52-metadata-e1")
    to_rest(cluster)
    attempt, epoch = cluster.status.attempt, cluster.status.store_epoch
    cluster.report = a_report(store_epoch=epoch, attempt=attempt, acked_step=1)
    cluster.stored = {}
    cluster.version += 1
    to_rest(cluster)
    assert cluster.status.attempt > attempt
    assert cluster.status.store_epoch == epoch
    assert cluster.names_of("consumer") == [f"consumer-{index}-a{cluster.status.attempt}" for index in range(2)]
