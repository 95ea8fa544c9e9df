"""The metadata store's conformance suite, second part: the gang, orders, acks, losses, checkpoint commits."""

import math

import msgspec
import pytest

from eyas_contract import wire
from eyas_contract.errors import Closed, Conflict, Fenced, UserError
from eyas_contract.ids import Incarnation
from eyas_contract.states import Phase
from support.jobs import NOW, Actor
from support.metadata_stores import Stores


def verdict(sequence: int, *, step: int = 0) -> wire.Verdict:
    """A sample that the ranks gave zero weight (windows of 4)."""
    return wire.Verdict(sequence=sequence, step=step or sequence // 4 + 1, reason="loss is not finite")


# --- orders ------------------------------------------------------------------------------------------------------


def test_order_is_the_same_however_often_it_is_asked_for(stores: Stores) -> None:
    actor = stores.running()
    order = actor.train()
    ref = order.entries[0].ref
    assert ref is not None
    actor.lose((ref.sequence, ref.generation))
    actor.capture_all()
    assert actor.store.order(actor.incarnation, 0) == order
    assert actor.store.give_train_order(actor.incarnation, 0, 1, now=NOW) == order
    assert actor.store.gang().orders_given == 1


def test_order_out_of_turn_is_refused(stores: Stores) -> None:
    actor = stores.running()
    assert actor.store.order(actor.incarnation, 0) is None
    with pytest.raises(Conflict, match="out of turn"):
        actor.store.give_train_order(actor.incarnation, 1, 1, now=NOW)
    actor.train()
    with pytest.raises(Conflict, match="another"):
        actor.store.give_stop_order(actor.incarnation, 0, 1, reason="drain", now=NOW)


def test_windows_are_handed_out_in_order_only(stores: Stores) -> None:
    actor = stores.running()
    with pytest.raises(Conflict, match="comes 1"):
        actor.store.give_train_order(actor.incarnation, 0, 2, now=NOW)
    actor.train()
    with pytest.raises(Conflict, match="comes 2"):
        actor.store.give_train_order(actor.incarnation, 1, 1, now=NOW)


def test_window_that_is_not_ready_is_not_sealed(stores: Stores) -> None:
    actor = stores.actor()
    actor.capture_all(until=3)
    actor.reconcile()
    assert not actor.store.window_ready(1)
    with pytest.raises(Conflict, match="not ready"):
        actor.train()
    assert actor.store.gang().sealed_step == 0
    actor.capture_all(until=4)
    assert actor.store.window_ready(1)
    assert [entry.sequence for entry in actor.train().entries] == [0, 1, 2, 3]


def test_last_window_may_be_short_and_none_follows(stores: Stores) -> None:
    actor = stores.running(10)
    orders = [actor.train() for _ in range(3)]
    assert [len(order.entries) for order in orders] == [4, 4, 2]
    assert not actor.store.window_ready(4)
    assert not actor.store.window_ready(0)


def test_hazard_14_what_max_steps_leaves_out_is_never_captured_and_not_missing_at_the_end(stores: Stores) -> None:
    actor = stores.running(20, max_steps=2)
    assert [int(each[2:]) for each in actor.store.all_committed_ids()] == list(range(8))
    actor.train()
    actor.train()
    assert not actor.store.window_ready(3)
    actor.checkpoint(last=True)
    actor.sweep_garbage()
    status, audit = actor.store.status(), actor.store.audit()
    assert (status.phase, status.total_steps) == (Phase.COMPLETE, 2)
    assert (audit.trained_once, audit.dead_lettered, audit.missing, audit.resident_objects) == (8, 0, 0, 0)
    assert actor.store.groups_in_need(limit=1) == ()


def test_hazard_12_window_with_only_holes_is_ordered_all_the_same(stores: Stores) -> None:
    actor = stores.actor(4, empty=(0, 1, 2, 3))
    actor.reconcile()
    order = actor.train()
    assert [entry.ref for entry in order.entries] == [None] * 4
    actor.checkpoint(last=True)
    audit = actor.store.audit()
    assert (audit.trained_once, audit.dead_lettered, audit.missing) == (0, 4, 0)
    assert actor.store.status().phase == Phase.COMPLETE


def test_prefetch_names_what_is_ready_of_the_next_window(stores: Stores) -> None:
    actor = stores.actor()
    actor.capture_all(until=6)
    actor.reconcile()
    assert [ref.sequence for ref in actor.train().prefetch] == [4, 5]


def test_nothing_follows_the_last_order(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    actor.order_checkpoint(last=True, reason="drain")
    assert actor.store.gang().ending
    with pytest.raises(Conflict, match="last order"):
        actor.train()


def test_checkpoint_is_ordered_at_the_boundary_only(stores: Stores) -> None:
    actor = stores.running()
    with pytest.raises(Conflict, match="durable already"):
        actor.order_checkpoint()
    actor.train()
    with pytest.raises(Conflict, match="boundary"):
        actor.store.give_checkpoint_order(actor.incarnation, 1, 2, last=False, reason="schedule", now=NOW)
    order = actor.order_checkpoint()
    assert order.state is not None
    assert (order.state.step, order.state.attempt) == (1, 1)
    assert actor.store.gang().checkpoint_ordered_step == 1


# --- acks --------------------------------------------------------------------------------------------------------


def test_acks_are_contiguous_and_a_repeat_is_harmless(stores: Stores) -> None:
    actor = stores.running()
    actor.train(ack=False)
    actor.train(ack=False)
    with pytest.raises(Conflict, match="cannot be acked"):
        actor.ack(2)
    actor.ack(1)
    actor.ack(1)
    actor.ack(2)
    actor.ack(1)
    assert actor.store.gang().acked_step == 2


def test_ack_of_a_window_that_was_not_handed_out_is_refused(stores: Stores) -> None:
    actor = stores.running()
    order = actor.train()
    actor.orders[2] = msgspec.structs.replace(order, step=2)
    with pytest.raises(Conflict, match="not handed"):
        actor.ack(2)
    actor.train(ack=False)
    actor.orders[2] = msgspec.structs.replace(actor.orders[2], version=7)
    with pytest.raises(Conflict, match="version 7"):
        actor.ack(2)
    assert actor.store.gang().acked_step == 1


def test_verdict_on_a_sample_of_another_window_is_refused(stores: Stores) -> None:
    actor = stores.running()
    actor.train(ack=False)
    with pytest.raises(UserError, match="not about window"):
        actor.ack(1, verdicts=(verdict(4, step=1),))
    with pytest.raises(UserError, match="not about window"):
        actor.ack(1, verdicts=(verdict(1, step=2),))
    assert actor.store.gang().acked_step == 0


def test_ack_is_progress_and_not_durability(stores: Stores) -> None:
    actor = stores.running()
    for _ in range(5):
        actor.train()
    assert actor.store.durable_marker() == (0, 0)
    assert actor.store.releasable(limit=100) == ()
    assert actor.store.status().phase == Phase.RUNNING
    assert actor.store.audit().trained_once == 0


def test_metrics_of_a_replay_overwrite(stores: Stores) -> None:
    actor = stores.running()
    actor.train(ack=False)
    actor.ack(1, loss=3.0)
    actor.reconcile()
    actor.train(ack=False)
    actor.ack(1, loss=2.0)
    actor.train(ack=False)
    actor.ack(2, loss=math.nan)
    steps = actor.store.metrics(0, 10).steps
    assert [(each.step, each.values.get("loss")) for each in steps] == [(1, 2.0), (2, None)]
    assert actor.store.metrics(1, 10).steps == steps[1:]
    assert actor.store.status().last_metrics == steps[1].values


# --- losses ------------------------------------------------------------------------------------------------------


def test_loss_is_about_the_generation_that_was_seen(stores: Stores) -> None:
    actor = stores.running()
    ref = actor.train().entries[0].ref
    assert ref is not None
    assert actor.lose((0, ref.generation)) == 1
    assert actor.lose((0, ref.generation)) == 0
    actor.capture_all()
    assert actor.lose((0, ref.generation)) == 0
    fresh = actor.store.current_refs(actor.incarnation, 1, 1, [0]).refs[0]
    assert fresh.generation > ref.generation
    assert actor.store.status().samples_lost == 0


def test_present_refs_of_a_sealed_window_wait_for_what_is_captured_again(stores: Stores) -> None:
    actor = stores.running()
    order = actor.train()
    ref = order.entries[1].ref
    assert ref is not None
    actor.lose((1, ref.generation))
    reply = actor.store.current_refs(actor.incarnation, 1, 1, [0, 1])
    assert (reply.refs, reply.pending) == ((order.entries[0].ref,), (1,))
    actor.capture_all()
    assert actor.store.current_refs(actor.incarnation, 1, 1, [0, 1]).pending == ()


def test_refs_of_what_is_no_live_place_are_refused(stores: Stores) -> None:
    actor = stores.running(8, empty=(3,))
    hole = actor.store.status().dead_letters[0].sequence
    actor.train()
    actor.train()
    with pytest.raises(UserError, match="no live sample"):
        actor.store.current_refs(actor.incarnation, hole // 4 + 1, 1, [hole])
    with pytest.raises(UserError, match="no live sample"):
        actor.store.current_refs(actor.incarnation, 1, 1, [4])
    with pytest.raises(UserError, match="never sealed"):
        actor.store.current_refs(actor.incarnation, 3, 1, [])
    with pytest.raises(Closed, match="version"):
        actor.store.current_refs(actor.incarnation, 1, 2, [0])


def test_loss_of_an_unknown_sequence_number_is_refused_whole(stores: Stores) -> None:
    actor = stores.running()
    ref = actor.train().entries[0].ref
    assert ref is not None
    with pytest.raises(UserError, match="outside"):
        actor.lose((0, ref.generation), (20, 1))
    assert actor.store.status().samples_lost == 0


def test_every_loss_is_an_incident_that_ends_when_all_is_captured_again(stores: Stores) -> None:
    actor = stores.running()
    refs = [entry.ref for entry in actor.train().entries if entry.ref is not None]
    actor.lose(*((ref.sequence, ref.generation) for ref in refs[:2]))
    assert [(i.klass, i.recovered) for i in actor.store.status().incidents] == [("SampleLost", 0.0)]
    actor.capture_all()
    assert [i.recovered for i in actor.store.status().incidents] == [NOW]


# --- the commit point --------------------------------------------------------------------------------------------


def test_hazard_07_commit_acks_every_window_up_to_it(stores: Stores) -> None:
    actor = stores.running()
    actor.train(ack=False)
    actor.train(ack=False)
    actor.checkpoint()
    assert actor.store.gang().acked_step == 2
    assert actor.store.durable_marker() == (2, 8)
    audit = actor.store.audit()
    assert (audit.trained_once, audit.trained_twice, audit.missing) == (8, 0, 0)
    actor.ack(1, loss=4.0)
    assert actor.store.metrics(0, 1).steps[0].values["loss"] == 4.0


def test_nothing_is_released_before_a_commit_contains_it(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    actor.train()
    order = actor.order_checkpoint()
    assert actor.store.releasable(limit=100) == ()
    request = actor.commit_request(order)
    actor.store.commit_checkpoint(request, "receipt", keep=1, now=NOW)
    released = {each.key for each in actor.store.releasable(limit=100)}
    used = {entry.ref.key for step in (1, 2) for entry in actor.orders[step].entries if entry.ref is not None}
    assert released == used
    assert actor.sweep_garbage() == 8
    assert actor.store.usage().resident_objects == 12


def test_repeated_commit_answers_the_same_and_applies_once(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    order = actor.order_checkpoint()
    request = actor.commit_request(order)
    first = actor.store.commit_checkpoint(request, "receipt", keep=1, now=NOW)
    assert actor.store.commit_checkpoint(request, "receipt", keep=1, now=NOW) == first
    actor.train()
    actor.checkpoint()
    actor.store.close_incarnation(actor.incarnation, klass="Hang", message="", now=NOW)
    actor.store.commit_checkpoint(request, "receipt", keep=1, now=NOW)
    assert actor.store.durable_marker() == (2, 8)
    assert actor.store.audit().trained_once == 8
    assert [each.receipt for each in actor.store.known_checkpoints() if each.step == 1] == ["receipt"]


def test_second_manifest_for_a_durable_step_is_refused(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    order = actor.order_checkpoint()
    actor.store.commit_checkpoint(actor.commit_request(order), "r", keep=1, now=NOW)
    with pytest.raises(Conflict, match="not after"):
        actor.store.commit_checkpoint(actor.commit_request(order, digest="blake3:other"), "r", keep=1, now=NOW)


def test_checkpoint_that_was_not_ordered_cannot_be_committed(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    request = actor.commit_request(actor.order_checkpoint())
    actor.train()
    with pytest.raises(Conflict, match="ordered"):
        actor.store.commit_checkpoint(
            msgspec.structs.replace(request, step=2, manifest_digest="blake3:x"), "r", keep=1, now=NOW
        )
    assert actor.store.durable_marker() == (0, 0)


def test_hazard_08_directory_belongs_to_one_commit(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    first = actor.checkpoint()
    actor.train()
    request = actor.commit_request(actor.order_checkpoint())
    with pytest.raises(Conflict, match="directory"):
        actor.store.commit_checkpoint(msgspec.structs.replace(request, directory=first.directory), "r", keep=1, now=NOW)


@pytest.mark.parametrize("announced", [True, False], ids=["acked", "ack-lost"])
def test_hazard_38_verdict_of_the_ranks_is_in_the_ledger_even_when_its_ack_was_lost(
    stores: Stores, announced: bool
) -> None:
    actor = stores.running()
    actor.train(ack=announced, verdicts=(verdict(2),))
    actor.checkpoint(verdicts=(verdict(2),))
    audit = actor.store.audit()
    assert (audit.trained_once, audit.dead_lettered, audit.missing) == (3, 1, 0)
    letters = actor.store.status().dead_letters
    assert [(letter.sequence, letter.step, letter.source) for letter in letters] == [(2, 1, "rank")]


def test_manifest_that_lacks_an_announced_verdict_is_refused(stores: Stores) -> None:
    actor = stores.running()
    actor.train(verdicts=(verdict(2),))
    with pytest.raises(UserError, match="lacks the verdict"):
        actor.checkpoint()
    assert actor.store.durable_marker() == (0, 0)


def test_verdict_outside_the_checkpoints_windows_is_refused(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    actor.checkpoint()
    actor.train()
    for wrong in (verdict(1), verdict(9), verdict(5, step=3)):
        with pytest.raises(UserError, match="not about windows"):
            actor.checkpoint(verdicts=(wrong,))
        actor.ordinal = actor.store.gang().orders_given
    assert actor.store.durable_marker() == (1, 4)


def test_superseded_directories_are_garbage_and_the_newest_are_kept(stores: Stores) -> None:
    actor = stores.running()
    garbage = []
    for _ in range(5):
        actor.train()
        request = actor.commit_request(actor.order_checkpoint())
        garbage.append(actor.store.commit_checkpoint(request, "r", keep=2, now=NOW))
    assert [[int(name[5:14]) for name in names] for names in garbage] == [[], [], [1], [2], [3]]
    assert [each.step for each in actor.store.known_checkpoints()] == [5, 4]


def test_complete_means_durable_to_the_end(stores: Stores) -> None:
    actor = stores.running()
    for _ in range(5):
        actor.train()
    assert actor.store.status().phase == Phase.RUNNING
    actor.checkpoint(last=True)
    actor.sweep_garbage()
    status, audit = actor.store.status(), actor.store.audit()
    assert status.phase == Phase.COMPLETE
    assert (status.checkpoint_directory, status.weights_sha256) == (actor.committed[-1].directory, "sha-5")
    assert (audit.trained_once, audit.trained_twice, audit.missing, audit.resident_objects) == (20, 0, 0, 0)


# --- the gang ----------------------------------------------------------------------------------------------------


def test_ranks_join_the_open_incarnation_of_their_attempt(stores: Stores) -> None:
    actor = stores.running()
    state = actor.store.join(1, 1, "p1", now=NOW)
    assert (state.incarnation, state.open, state.checkpoint_step) == (actor.incarnation, True, 0)
    assert actor.store.join(1, 1, "p1", now=NOW) == state
    assert actor.store.join(2, 1, "p9", now=NOW).incarnation is None
    with pytest.raises(UserError, match="rank 2"):
        actor.store.join(1, 2, "p2", now=NOW)
    with pytest.raises(UserError, match="rank 0"):
        actor.store.join(1, 0, "p3", now=NOW)


def test_second_process_of_a_rank_closes_the_incarnation(stores: Stores) -> None:
    actor = stores.running()
    actor.store.join(1, 1, "p1", now=NOW)
    assert actor.store.join(1, 1, "p2", now=NOW).incarnation is None
    assert not actor.store.gang().open
    assert actor.store.closed_processes(1, ["p1", "p2"]) == ("p1",)
    with pytest.raises(Closed):
        actor.store.join(1, 1, "p1", now=NOW)
    assert [i.klass for i in actor.store.status().incidents] == ["ChildExited"]


def test_exit_of_a_member_closes_the_incarnation(stores: Stores) -> None:
    actor = stores.running()
    actor.store.join(1, 1, "p1", now=NOW)
    _exit(actor, "p1", -9)
    assert not actor.store.gang().open
    with pytest.raises(Closed):
        actor.train()
    (incident,) = actor.store.status().incidents
    assert (incident.klass, incident.unit, incident.serial) == ("ChildExited", "consumers", 1)
    assert incident.message.startswith("rank 1 ended with SIGKILL")
    _exit(actor, "p1", -9)
    assert len(actor.store.status().incidents) == 1


def test_ranks_killed_again_before_they_joined_are_a_second_incident_and_close_nothing(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    actor.store.join(1, 1, "p1", now=NOW)
    _exit(actor, "p1", -9, time=NOW + 1, siblings=("p0",))
    for process, sibling in (("q0", "q1"), ("q1", "q0")):  # Both ranks of one life report the same end.
        _exit(actor, process, -9, time=NOW + 2, siblings=(sibling,))
    first, second = actor.store.status().incidents
    assert (first.detected, second.detected) == (NOW + 1, NOW + 2)
    assert (second.klass, second.unit, second.serial) == ("ChildExited", "consumers", 1)
    assert "before it had joined" in second.message
    actor.reconcile()
    _exit(actor, "stranger", -9, time=NOW + 3)
    assert actor.store.gang().open
    assert [incident.windows_replayed for incident in actor.store.status().incidents] == [1, 0, 0]


def test_the_exit_of_a_life_closes_its_gang_whichever_of_its_ranks_had_joined(stores: Stores) -> None:
    actor = stores.running()
    actor.store.join(1, 1, "p1", now=NOW)
    _exit(actor, "not-joined", -9, siblings=("p1",))
    assert not actor.store.gang().open
    assert len(actor.store.status().incidents) == 1


def test_a_life_that_leaves_with_its_pod_closes_the_gang_without_an_incident(stores: Stores) -> None:
    actor = stores.running()
    actor.store.join(1, 1, "p1", now=NOW)
    _exit(actor, "q1", 1, leaving=True)
    assert actor.store.gang().open
    _exit(actor, "p1", 1, leaving=True)
    assert not actor.store.gang().open
    assert actor.store.status().incidents == ()


def test_ranks_incident_has_a_successor_at_the_reconcile_and_is_over_at_the_next_step(stores: Stores) -> None:
    actor = stores.running()
    actor.store.join(1, 1, "p1", now=NOW)
    _exit(actor, "p1", -9, time=NOW - 5)
    assert [(it.replaced, it.recovered) for it in actor.store.status().incidents] == [(0.0, 0.0)]
    actor.reconcile()
    assert [(it.replaced, it.recovered) for it in actor.store.status().incidents] == [(NOW, 0.0)]
    actor.train()
    assert [(it.replaced, it.recovered) for it in actor.store.status().incidents] == [(NOW, NOW)]


def _restart(**changes: object) -> wire.RestartRequest:
    values: dict[str, object] = {"role": "store-master", "index": 0, "serial": 1, "time": NOW - 3, "reason": "SIGKILL"}
    return wire.RestartRequest(**{**values, **changes})  # type: ignore[arg-type]


def test_a_restart_is_one_incident_however_often_it_is_told(stores: Stores) -> None:
    actor = stores.running()
    for ready in (0.0, 0.0, NOW - 1, NOW + 9):
        actor.store.report_restart(_restart(ready=ready))
    (incident,) = actor.store.status().incidents
    assert (incident.klass, incident.unit, incident.serial) == ("ChildExited", "store-master", 1)
    assert (incident.detected, incident.replaced, incident.recovered) == (NOW - 3, NOW - 1, 0.0)
    assert "SIGKILL" in incident.message
    actor.store.report_restart(_restart(time=NOW - 2))
    actor.store.report_restart(_restart(role="producer", index=1))
    assert [it.unit for it in actor.store.status().incidents] == ["store-master", "store-master", "producer-1"]


def test_a_restart_is_over_at_the_first_work_after_its_child_was_ready(stores: Stores) -> None:
    actor = stores.running()
    actor.store.report_restart(_restart())
    actor.train()
    assert [it.recovered for it in actor.store.status().incidents] == [0.0], "a step that did not need the store"
    actor.store.report_restart(_restart(ready=NOW - 1))
    actor.train()
    assert [it.recovered for it in actor.store.status().incidents] == [NOW]


def test_a_producers_restart_is_over_at_the_next_capture(stores: Stores) -> None:
    actor = stores.actor()
    actor.store.report_restart(_restart(role="producer", ready=NOW - 1))
    actor.capture_all(until=1)
    assert [it.recovered for it in actor.store.status().incidents] == [NOW]


@pytest.mark.parametrize(("code", "ordered", "remains"), [(0, True, True), (75, True, True), (0, False, False)])
def test_only_an_ordered_end_is_a_clean_end(stores: Stores, code: int, ordered: bool, remains: bool) -> None:
    actor = stores.running()
    actor.store.join(1, 1, "p1", now=NOW)
    actor.train()
    if ordered:
        actor.order_checkpoint(last=True)
    _exit(actor, "p1", code)
    assert actor.store.gang().open is remains


def test_closed_incarnation_can_change_nothing(stores: Stores) -> None:
    actor = stores.running()
    order = actor.train(ack=False)
    request = actor.commit_request(actor.order_checkpoint())
    ref = order.entries[0].ref
    assert ref is not None
    actor.store.close_incarnation(actor.incarnation, klass="Hang", message="no work", now=NOW)
    _assert_powerless(actor, ref.generation, request, Closed)
    assert actor.store.gang().acked_step == 0


def test_older_attempt_can_change_nothing(stores: Stores) -> None:
    actor = stores.running()
    order = actor.train(ack=False)
    request = actor.commit_request(actor.order_checkpoint())
    ref = order.entries[0].ref
    assert ref is not None
    newer = Actor(actor.store, attempt=2, count=1000)
    newer.reconcile()
    _assert_powerless(actor, ref.generation, request, Fenced)
    with pytest.raises(Fenced):
        actor.reconcile()
    for call in (
        lambda: actor.store.join(1, 1, "p1", now=NOW),
        lambda: _exit(actor, "p1", 1),
        lambda: actor.store.closed_processes(1, []),
    ):
        with pytest.raises(Fenced):
            call()
    assert newer.train().step == 1


def test_unknown_incarnation_can_change_nothing(stores: Stores) -> None:
    actor = stores.running()
    actor.train(ack=False)
    actor.incarnation = Incarnation("f" * 32)
    with pytest.raises(Closed, match="not known"):
        actor.ack(1)


def test_recovered_is_said_at_the_first_step_afterwards(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    actor.train()
    actor.store.close_incarnation(actor.incarnation, klass="Hang", message="no work", now=NOW - 50)
    actor.reconcile()
    incident = actor.store.status().incidents[0]
    assert (incident.klass, incident.recovered, incident.windows_replayed) == ("Hang", 0.0, 2)
    actor.train()
    assert actor.store.status().incidents[0].recovered == NOW


def _exit(actor: Actor, process: str, code: int, **more: object) -> None:
    values = {"attempt": actor.attempt, "rank": 1, "process": process, "code": code, **more}
    actor.store.report_exit(wire.ExitRequest(**values), now=NOW)  # type: ignore[arg-type]


def _assert_powerless(
    actor: Actor, generation: int, request: wire.CheckpointCommitRequest, error: type[Exception]
) -> None:
    """Everything that an incarnation may do raises `error`, and nothing happens."""
    before = actor.store.status(), actor.store.audit()
    for call in (
        lambda: actor.ack(1),
        lambda: actor.lose((0, generation)),
        lambda: actor.store.commit_checkpoint(request, "r", keep=1, now=NOW),
        lambda: actor.store.give_train_order(actor.incarnation, actor.ordinal, actor.step + 1, now=NOW),
        lambda: actor.store.give_stop_order(actor.incarnation, actor.ordinal, actor.step, reason="drain", now=NOW),
        lambda: actor.store.order(actor.incarnation, 0),
        lambda: actor.store.current_refs(actor.incarnation, 1, 1, [0]),
    ):
        with pytest.raises(error):
            call()
    assert (actor.store.status(), actor.store.audit()) == before


def test_order_that_a_commit_left_behind_is_not_kept(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    actor.checkpoint()
    for ordinal in (0, 1):
        with pytest.raises(Conflict, match="carried out"):
            actor.store.order(actor.incarnation, ordinal)
