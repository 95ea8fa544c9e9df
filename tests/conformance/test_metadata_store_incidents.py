"""The metadata store's conformance suite: restarts of other roles than the ranks' that supervisors tell of."""

import pytest

from eyas_contract import wire
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
