"""The metadata store's conformance suite, last part: interleavings that broke an earlier design, by their numbers.

Only those that no other part plays as they were; a claim of another part that is one of them bears its number there.
"""

import msgspec
import pytest

from eyas_contract import wire
from eyas_contract.errors import Closed, Conflict, Fenced
from eyas_contract.ids import generation_of
from support.jobs import NOW, Actor, holder
from support.metadata_stores import Stores


def test_hazard_02_a_record_made_before_its_commit_says_what_the_commit_made_durable(stores: Stores) -> None:
    """The record lies inside the checkpoint: at its making, C is not durable, and windows beyond C are acked soon."""
    before = stores.running()
    before.train()
    before.checkpoint()
    before.train()
    order = before.order_checkpoint()
    before.train()
    request = before.commit_request(order)
    before.store.commit_checkpoint(request, "r", keep=2, now=NOW)
    assert (before.store.durable_marker(), before.store.gang().acked_step) == ((2, 8), 3)
    after = stores.actor(store_epoch=2)
    after.attempt = 2
    after.reconcile(before.present(order, request))
    assert (after.store.durable_marker(), after.store.gang().acked_step) == ((2, 8), 2)
    assert after.store.audit().trained_once == 8
    after.capture_all()
    assert after.train().step == 3


def test_hazard_02_a_record_does_not_grow_with_the_rows(stores: Stores) -> None:
    """It is made on the one thread that commits acks: facts and dead letters, never a copy of the table."""
    sizes = []
    for count in (20, 400):
        actor = stores.running(count)
        actor.train()
        sizes.append(len(msgspec.json.encode(actor.order_checkpoint().state)))
    assert sizes[1] - sizes[0] < 10, "only the digits of its counters"


def test_hazard_04_zombies_of_before_a_restore_can_write_nothing(stores: Stores) -> None:
    before = stores.running()
    before.train()
    shown = before.checkpoint()
    resident = before.store.resident(after=None, limit=100)
    after = stores.actor(store_epoch=2)
    after.attempt = 2
    after.reconcile(shown)
    zombie = Actor(after.store, count=500)
    zombie.incarnation, zombie.ordinal, zombie.step = before.incarnation, before.ordinal, before.step
    for call in (zombie.train, zombie.order_checkpoint, lambda: zombie.lose((4, 1))):
        with pytest.raises(Closed):
            call()
    before.train()
    request = before.commit_request(before.order_checkpoint())
    with pytest.raises((Closed, Fenced)):
        after.store.commit_checkpoint(request, "r", keep=2, now=NOW)
    with pytest.raises(Fenced):
        zombie.reconcile(shown)
    assert after.store.gang().incarnation == after.incarnation
    assert after.store.gang().open
    assert after.store.durable_marker() == (1, 4)
    highest = max(generation_of(each.key) for each in resident)
    tasks = after.lease().tasks
    assert min(task.generation for task in tasks if task.capture) > highest
    assert not {task.key for task in tasks} & {each.key for each in resident}


def test_hazard_04_a_lease_of_before_a_restore_cannot_commit(stores: Stores) -> None:
    before = stores.actor()
    before.capture_all(until=9)
    before.reconcile()
    before.train()
    shown = before.checkpoint()
    held = before.lease()
    after = stores.actor(store_epoch=2)
    after.attempt = 2
    after.reconcile(shown)
    after.count = 500
    fresh = after.lease(group=held.group)
    with pytest.raises((Conflict, Fenced)):
        after.commit(held)
    assert after.store.status().samples_ready == 0
    assert after.commit(fresh) == tuple(task.sequence for task in held.tasks)


def test_hazard_09_ranks_killed_again_and_again_in_one_window_condemn_none_of_its_samples(stores: Stores) -> None:
    actor = stores.running()
    for _ in range(4):
        order = actor.train(ack=False)
        assert (order.step, order.version) == (1, 1)
        assert [entry.ref is not None for entry in order.entries] == [True] * 4
        actor.store.close_incarnation(actor.incarnation, klass="ChildExited", message="signal 9", now=NOW)
        actor.reconcile()
    for _ in range(5):
        actor.train()
    actor.checkpoint(last=True)
    audit = actor.store.audit()
    assert (audit.trained_once, audit.dead_lettered, audit.missing) == (20, 0, 0)
    assert actor.store.status().exact


def test_hazard_09_producers_that_die_around_one_prompt_condemn_none_of_its_group(stores: Stores) -> None:
    for reason in ("expired", "replaced", "deadline"):
        actor = stores.actor()
        for restart in range(1, 8):
            who = actor.register(holder(restart=restart))
            actor.store.end_leases([actor.lease(who).lease_id], reason=reason, now=NOW)
        last = actor.register(holder(restart=9))
        assert actor.store.status().samples_dead == 0
        assert actor.store.groups_in_need(limit=1)[0].members_in_need == 3
        assert actor.commit(actor.lease(last), last) == (0, 1, 2)


def test_hazard_10_dead_letters_change_no_later_window_and_no_horizon(stores: Stores) -> None:
    def windows(poisoned: frozenset[int]) -> tuple[int, list[list[tuple[int, bool]]]]:
        actor = stores.actor(10, epochs=2)
        while needs := actor.store.groups_in_need(limit=1):
            lease = actor.lease(group=needs[0].group)
            bad = [
                wire.CaptureFailure(sequence=task.sequence, reason="bad", poison=True)
                for task in lease.tasks
                if task.capture and task.sequence in poisoned
            ]
            if bad:
                actor.store.fail_capture(holder(), lease.lease_id, lease.token, bad, now=NOW)
            else:
                actor.commit(lease)
        horizon = actor.reconcile().total_steps
        content = [[(entry.sequence, entry.ref is None) for entry in actor.train().entries] for _ in range(horizon)]
        actor.checkpoint(last=True)
        assert actor.store.audit().missing == 0
        return horizon, content

    poisoned = frozenset({1, 2, 4, 5, 6, 7, 9})
    horizon, clean = windows(frozenset())
    assert horizon == 5
    expected = [[(sequence, sequence in poisoned) for sequence, _ in window] for window in clean]
    assert windows(poisoned) == (horizon, expected)
