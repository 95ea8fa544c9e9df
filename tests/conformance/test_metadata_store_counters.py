"""What a status counts: windows trained again, samples that wait, and the two numbers that must stay 0."""

from support.jobs import Actor
from support.metadata_stores import Stores


def train(actor: Actor, windows: int) -> None:
    for _ in range(windows):
        actor.train()


def replayed(actor: Actor) -> int | None:
    return actor.store.status().samples_replayed


def waits(actor: Actor) -> int | None:
    return actor.store.status().samples_waiting


def test_samples_are_replayed_when_their_window_is_trained_again_and_not_before(stores: Stores) -> None:
    actor = stores.running()
    train(actor, 1)
    shown = actor.checkpoint()
    train(actor, 2)
    assert (replayed(actor), actor.store.status().reached_step) == (0, 3)
    actor.reconcile(shown)
    assert (replayed(actor), actor.store.status().reached_step) == (0, 3)
    actor.train(ack=False)
    assert replayed(actor) == 0
    actor.ack(2)
    assert replayed(actor) == 4
    actor.ack(2)
    assert replayed(actor) == 4
    train(actor, 2)
    assert (replayed(actor), actor.store.status().reached_step) == (8, 4)


def test_a_window_that_is_trained_three_times_is_replayed_twice(stores: Stores) -> None:
    actor = stores.running()
    train(actor, 3)
    actor.reconcile()
    train(actor, 1)
    actor.reconcile()
    train(actor, 4)
    assert replayed(actor) == 4 + 3 * 4


def test_a_short_window_replays_the_samples_it_has(stores: Stores) -> None:
    actor = stores.running(count=6)
    train(actor, 2)
    actor.reconcile()
    train(actor, 2)
    assert replayed(actor) == 6


def test_held_out_samples_are_not_replayed(stores: Stores) -> None:
    actor = stores.running(count=12, held_out=5, evaluate_every=3)
    train(actor, 5)
    actor.reconcile()
    train(actor, 5)
    assert (replayed(actor), actor.store.status().samples_evaluated) == (12, 5)


def test_going_back_before_a_commit_replays_what_was_durable(stores: Stores) -> None:
    actor = stores.running()
    train(actor, 1)
    first = actor.checkpoint()
    train(actor, 2)
    second = actor.checkpoint()
    actor.reconcile(first, refused=(second.directory,))
    actor.capture_all()
    train(actor, 2)
    status = actor.store.status()
    assert (status.samples_replayed, status.samples_recaptured, status.samples_applied_twice) == (8, 8, 0)


def test_a_new_database_begins_with_nothing_replayed(stores: Stores) -> None:
    line = stores.running()
    train(line, 3)
    newest = line.checkpoint()
    train(line, 1)
    after = stores.actor(store_epoch=2)
    after.reconcile(newest)
    after.capture_all()
    train(after, 2)
    status = after.store.status()
    assert (status.samples_replayed, status.reached_step) == (0, 5)
    assert (status.samples_applied_twice, status.samples_missing) == (0, 0)


def test_dead_letters_wait_nowhere(stores: Stores) -> None:
    actor = stores.running(empty=(3, 7, 11, 12, 13))
    left = 15
    for _ in range(5):
        assert waits(actor) == left
        left -= sum(entry.ref is not None for entry in actor.train().entries)
    assert (waits(actor), left) == (0, 0)


def test_what_waits_is_in_the_store_and_in_no_acked_window(stores: Stores) -> None:
    actor = stores.actor()
    actor.capture_all(until=13)
    actor.reconcile()
    assert waits(actor) == 15
    train(actor, 1)
    actor.checkpoint()
    train(actor, 1)
    order = actor.train()
    assert waits(actor) == 3
    # One of an acked window and one behind it are lost: neither is there.
    refs = (*(entry.ref for entry in order.entries if entry.ref is not None), *order.prefetch)
    generations = {ref.sequence: ref.generation for ref in refs}
    actor.lose((9, generations[9]), (13, generations[13]))
    assert actor.store.status().samples_ready == 9
    assert waits(actor) == 2


def test_replays_through_short_rounds_count_training_samples_alone(stores: Stores) -> None:
    # Windows: 3 that train, 2 of a round, one short one that trains, 2 of the last round.
    actor = stores.running(count=13, held_out=5, evaluate_every=3, allow_restart_from_zero=True)
    assert actor.store.status().total_steps == 8
    train(actor, 6)
    shown = actor.checkpoint()
    train(actor, 1)
    actor.reconcile(shown)
    train(actor, 1)
    assert replayed(actor) == 0
    actor.train()
    actor.reconcile()
    actor.capture_all()
    train(actor, 8)
    assert replayed(actor) == 13
