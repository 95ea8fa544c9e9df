"""The metadata store's conformance suite: restarts of other roles than the ranks' that supervisors tell of."""

import pytest

from eyas_contract import wire
from eyas_contract.errors import Fenced
from support.jobs import NOW, Actor, holder
from support.metadata_stores import Stores


def told(actor: Actor, **changes: object) -> None:
    values: dict[str, object] = {"role": "producer", "index": 0, "serial": 1, "time": NOW - 3, "reason": "SIGSEGV"}
    actor.store.report_restart(wire.RestartRequest(**{**values, **changes}))  # type: ignore[arg-type]


def successors(actor: Actor) -> list[float]:
    return [incident.replaced for incident in actor.store.status().incidents]


@pytest.mark.parametrize("newer", [holder(ordinal=1, restart=1), holder(ordinal=2)])
def test_a_newer_process_of_a_producer_is_the_successor_of_what_its_pods_left_open(
    stores: Stores, newer: wire.Holder
) -> None:
    actor = stores.actor()
    told(actor)
    actor.register(newer)
    assert successors(actor) == [NOW]
    actor.commit(actor.lease(newer), who=newer)
    assert [incident.recovered for incident in actor.store.status().incidents] == [NOW]


def test_a_producer_succeeds_nobody_but_its_own_index_up_to_its_own_pod(stores: Stores) -> None:
    actor = stores.actor()
    told(actor, index=1)
    told(actor, role="store-node")
    told(actor, serial=3)
    told(actor, time=NOW - 4, ready=NOW - 2)
    actor.register(holder(ordinal=2))
    assert successors(actor) == [0.0, 0.0, 0.0, NOW - 2]


def test_the_same_process_that_registers_again_succeeds_nobody(stores: Stores) -> None:
    actor = stores.actor()
    told(actor)
    actor.register()
    assert successors(actor) == [0.0]


def test_a_supervisor_of_a_replaced_producer_pod_tells_nothing(stores: Stores) -> None:
    actor = stores.actor()
    told(actor)
    actor.register(holder(ordinal=2))
    before = actor.store.status().incidents
    for changes in ({"time": NOW - 2}, {"ready": NOW + 5}, {"serial": 0, "time": NOW - 1}):
        with pytest.raises(Fenced, match="replaced"):
            told(actor, **changes)
    assert actor.store.status().incidents == before
    told(actor, serial=2, time=NOW - 2)
    told(actor, index=1, time=NOW - 2)
    told(actor, role="store-node", time=NOW - 2)
    assert len(actor.store.status().incidents) == 4


@pytest.mark.parametrize("units", [1, 2, 300])
def test_a_flood_of_restarts_pushes_no_other_incident_out(stores: Stores, units: int) -> None:
    actor = stores.running()
    for number in range(16):
        actor.store.close_incarnation(actor.incarnation, klass="Hang", message=f"hang {number}", now=NOW)
        actor.reconcile()
    for number in range(300):
        told(actor, role="store-node", index=number % units, time=NOW + number)
    shown = actor.store.status().incidents
    assert [it.message for it in shown if it.klass == "Hang"] == [f"hang {number}" for number in range(16)]
    assert shown[-1].detected == NOW + 299


def test_a_flood_of_one_units_restarts_leaves_those_of_others_and_its_own_newest(stores: Stores) -> None:
    actor = stores.actor()
    told(actor, role="store-master")
    for number in range(100):
        told(actor, time=NOW + number)
    shown = actor.store.status().incidents
    assert shown[0].unit == "store-master"
    assert [it.detected for it in shown[1:]] == [NOW + number for number in range(76, 100)]
