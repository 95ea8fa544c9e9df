"""The metadata store's conformance suite, fourth part: windows of held-out samples, and the best checkpoint.

Jobs here have 12 prompts in windows of 4 and 5 held-out ones; an evaluation of two windows follows every second
training window, and one the last: windows 1 2 E E 3 E E.
"""

import itertools

import msgspec
import pytest

from eyas_contract import wire
from eyas_contract.errors import Transient, UserError
from eyas_contract.states import Phase
from support.jobs import NOW, Actor, inputs, prepared
from support.metadata_stores import Stores

PROMPTS, HELD_OUT = 12, 5
KINDS = (False, False, True, True, False, True, True)
"""Of windows 1 to 7: does it evaluate?"""
LENGTHS = [4, 4, 4, 1, 4, 4, 1]


def evaluating(stores: Stores, *, empty: tuple[int, ...] = (), **changes: object) -> Actor:
    """The job of the module docstring, captured and started."""
    return stores.running(PROMPTS, empty=empty, held_out=HELD_OUT, evaluate_every=2, group_size=4, **changes)


def test_evaluation_windows_come_in_their_places_of_the_one_sequence(stores: Stores) -> None:
    actor = evaluating(stores)
    orders = [actor.train() for _ in KINDS]
    assert [len(order.entries) for order in orders] == LENGTHS
    assert [entry.sequence for order in orders for entry in order.entries] == list(range(22))
    for now, after in itertools.pairwise(orders):
        assert [ref.sequence for ref in now.prefetch] == [entry.sequence for entry in after.entries]
    assert not actor.store.window_ready(8)


def test_capture_groups_do_not_span_an_evaluation(stores: Stores) -> None:
    actor = stores.actor(PROMPTS, held_out=HELD_OUT, evaluate_every=2, group_size=4)
    leases = []
    while needs := actor.store.groups_in_need(limit=1):
        leases.append(actor.lease(group=needs[0].group))
        actor.commit(leases[-1])
    assert [[task.sequence for task in lease.tasks] for lease in leases] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12], [13, 14, 15, 16], [17, 18, 19, 20], [21],
    ]  # fmt: skip
    prompts = [task.prompt_index for lease in leases for task in lease.tasks]
    assert prompts[8:13] == prompts[17:] == [12, 13, 14, 15, 16]
    assert sorted(prompts[:8] + prompts[13:17]) == list(range(PROMPTS))


def test_group_under_a_lease_is_passed_over_wherever_it_begins(stores: Stores) -> None:
    actor = evaluating(stores)
    order = actor.train()
    later = [actor.train() for _ in range(3)]
    refs = [entry.ref for each in (order, *later) for entry in each.entries if entry.ref is not None]
    for sequence in (8, 12):
        assert actor.lose((sequence, refs[sequence].generation)) == 1
    assert [need.group for need in actor.store.groups_in_need(limit=9)] == [2, 3]
    actor.lease(group=2)
    assert [need.group for need in actor.store.groups_in_need(limit=9)] == [3]


def test_job_is_complete_when_its_last_evaluation_is_durable(stores: Stores) -> None:
    actor = evaluating(stores)
    for _ in KINDS[:5]:
        actor.train()
    actor.checkpoint()
    assert actor.store.status().phase == Phase.RUNNING
    actor.train()
    actor.train()
    actor.checkpoint(last=True)
    actor.sweep_garbage()
    status, audit = actor.store.status(), actor.store.audit()
    assert (status.phase, status.total_steps, status.total_samples) == (Phase.COMPLETE, 7, 22)
    assert (audit.trained_once, audit.evaluated_once) == (PROMPTS, 2 * HELD_OUT)
    assert (audit.trained_twice, audit.missing, audit.resident_objects) == (0, 0, 0)


def test_status_counts_optimizer_steps_beside_windows(stores: Stores) -> None:
    actor = evaluating(stores)
    seen = []
    for number, evaluates in enumerate(KINDS, 1):
        actor.train(ack=False)
        actor.ack(number, metrics={"eval_loss": 9.0 - number} if evaluates and number in (4, 7) else {"loss": 0.5})
        status = actor.store.status()
        seen.append((status.acked_step, status.acked_training_step, status.last_metrics.get("eval_loss")))
    assert seen == [(1, 1, None), (2, 2, None), (3, 2, None), (4, 2, 5.0), (5, 3, 5.0), (6, 3, 5.0), (7, 3, 2.0)]
    assert actor.store.status().total_training_steps == 3
    assert actor.store.status().last_metrics["loss"] == 0.5
    steps = actor.store.metrics(0, 99).steps
    assert tuple(entry.evaluation for entry in steps) == KINDS
    assert [entry.training_step for entry in steps] == [1, 2, 2, 2, 3, 3, 3]


def test_status_and_audit_count_training_samples_apart_from_held_out_ones(stores: Stores) -> None:
    """Prompt 1 and the second held-out one are dead; windows 4 and 7 are short."""
    actor = evaluating(stores, empty=(1, PROMPTS + 1))
    expected = [0, 0]
    for evaluates in KINDS:
        expected[evaluates] += sum(entry.ref is not None for entry in actor.train().entries)
        status = actor.store.status()
        assert [status.samples_trained, status.samples_evaluated] == expected
    assert expected == [11, 8]
    actor.checkpoint(last=True)
    audit = actor.store.audit()
    assert (audit.trained_once, audit.evaluated_once, audit.dead_lettered, audit.missing) == (11, 8, 3, 0)


def test_held_out_prompt_without_supervised_tokens_is_a_hole_in_every_round(stores: Stores) -> None:
    actor = evaluating(stores, empty=(PROMPTS + 1,))
    orders = [actor.train() for _ in KINDS]
    holes = [entry.sequence for order in orders for entry in order.entries if entry.ref is None]
    assert holes == [9, 18]


def test_best_checkpoint_outlives_the_newest_ones_until_a_better_one_comes(stores: Stores) -> None:
    actor = evaluating(stores)
    for _ in range(4):
        actor.train()
    first = actor.checkpoint(keep=1, eval_loss=2.0)
    assert first.evaluation is not None
    for _ in range(2):
        actor.train()
        newer = actor.checkpoint(keep=1, best=first.evaluation.best)
    kept = [known.directory for known in actor.store.known_checkpoints()]
    assert kept == [newer.directory, first.directory]
    assert actor.store.status().best == first.evaluation.best
    actor.train()
    better = actor.checkpoint(keep=1, eval_loss=1.0, last=True)
    kept = [known.directory for known in actor.store.known_checkpoints()]
    assert first.directory not in kept, "only what is the best one, or may be again, is kept"
    assert better.directory in kept
    assert better.evaluation is not None
    assert actor.store.status().best == better.evaluation.best


def test_best_of_an_older_kept_checkpoint_is_kept_for_a_way_back(stores: Stores) -> None:
    actor = evaluating(stores)
    for _ in range(4):
        actor.train()
    first = actor.checkpoint(keep=2, eval_loss=2.0)
    assert first.evaluation is not None
    for _ in range(2):
        actor.train()
    middle = actor.checkpoint(keep=2, best=first.evaluation.best)
    actor.train()
    last = actor.checkpoint(keep=2, eval_loss=1.0)
    kept = {known.directory for known in actor.store.known_checkpoints()}
    assert kept == {first.directory, middle.directory, last.directory}
    actor.reconcile(middle, refused=(last.directory,))
    assert actor.store.status().best == first.evaluation.best


def test_lost_volume_gets_its_best_and_its_curve_back_from_the_record(stores: Stores) -> None:
    actor = evaluating(stores)
    for _ in range(4):
        actor.train()
    first = actor.checkpoint(eval_loss=2.0)
    actor.train()
    order = actor.order_checkpoint()
    assert first.evaluation is not None
    request = actor.commit_request(order, best=first.evaluation.best)
    points = (wire.EvaluationPoint(step=4, training_step=2, eval_loss=2.0),)
    shown = actor.present(order, request, points=points)
    actor.store.commit_checkpoint(request, shown.receipt, keep=1, now=NOW)
    empty = stores.actor(PROMPTS, held_out=HELD_OUT, evaluate_every=2, group_size=4, store_epoch=2)
    empty.attempt, empty.count = 2, 1000
    empty.reconcile(shown, listed=(first.directory, shown.directory))
    assert empty.store.durable_marker() == (5, 17)
    audit = empty.store.audit()
    assert (audit.trained_once, audit.evaluated_once, audit.trained_twice, audit.missing) == (12, 5, 0, 0)
    assert empty.store.status().best == first.evaluation.best
    restored = empty.store.metrics(0, 99).steps
    assert [(entry.step, entry.training_step, entry.values) for entry in restored] == [(4, 2, {"eval_loss": 2.0})]
    empty.capture_all()
    assert [entry.sequence for entry in empty.train().entries] == [17, 18, 19, 20]
    order = empty.order_checkpoint()
    garbage = empty.store.commit_checkpoint(
        empty.commit_request(order, best=first.evaluation.best), "receipt", keep=1, now=NOW
    )
    assert first.directory not in garbage
    empty.train()
    empty.checkpoint(last=True, best=first.evaluation.best)
    assert empty.store.audit().missing == 0


def test_lost_volume_waits_for_the_inputs_where_windows_hang_on_them(stores: Stores) -> None:
    actor = evaluating(stores)
    for _ in range(4):
        actor.train()
    shown = actor.checkpoint(eval_loss=2.0)
    empty = Actor(stores.store(evaluate_every=2, group_size=4, store_epoch=2), attempt=2, count=1000)
    with pytest.raises(Transient, match="prepared again"):
        empty.reconcile(shown)
    assert empty.store.gang().incarnation is None
    empty.store.commit_prepared(prepared(PROMPTS, held_out=HELD_OUT), now=NOW)
    assert empty.reconcile(shown).checkpoint_step == 4
    assert empty.store.durable_marker() == (4, 13)


def test_changed_held_out_prompts_are_refused(stores: Stores) -> None:
    actor = evaluating(stores)
    for _ in range(4):
        actor.train()
    shown = actor.checkpoint(eval_loss=2.0)
    others = msgspec.structs.replace(shown.state, inputs=msgspec.structs.replace(inputs(), evaluation="blake3:other"))
    with pytest.raises(UserError, match="evaluation"):
        actor.reconcile(msgspec.structs.replace(shown, state=others))


def test_groups_that_would_span_an_evaluation_are_refused(stores: Stores) -> None:
    store = stores.store(evaluate_every=1, group_size=3)
    with pytest.raises(UserError, match="multiple"):
        store.commit_prepared(prepared(PROMPTS, held_out=HELD_OUT), now=NOW)
    assert store.prepared() is None
