"""The metadata store's conformance suite, third part: the one way back, a lost volume, garbage, objects."""

import msgspec
import pytest

from eyas_contract import wire
from eyas_contract.errors import Closed, Conflict, Fenced, UserError
from eyas_contract.ids import Incarnation, generation_of
from eyas_contract.states import Phase
from eyas_runtime.core.recovery import GENERATION_JUMP, CheckpointsLost
from support.jobs import NOW, Actor, holder, prepared
from support.metadata_stores import Stores


def verdict(sequence: int) -> wire.Verdict:
    """A sample that the ranks gave zero weight (windows of 4)."""
    return wire.Verdict(sequence=sequence, step=sequence // 4 + 1, reason="loss is not finite")


# --- fencing -----------------------------------------------------------------------------------------------------


def test_same_process_gets_its_incarnation_again(stores: Stores) -> None:
    actor = stores.actor()
    first = actor.reconcile(process="p0")
    again = Actor(actor.store, count=500).reconcile(process="p0")
    assert again == first
    actor.store.close_incarnation(first.incarnation, klass="Hang", message="", now=NOW)
    with pytest.raises(Closed):
        Actor(actor.store, count=600).reconcile(process="p0")


def test_late_repeat_of_a_replaced_rank_0_cannot_fence_its_successor(stores: Stores) -> None:
    actor = stores.actor()
    actor.reconcile(process="p0")
    newer = actor.reconcile(process="p1")
    with pytest.raises(Closed):
        Actor(actor.store, count=500).reconcile(process="p0")
    assert actor.store.gang().incarnation == newer.incarnation
    assert actor.store.gang().open


def test_reconcile_closes_the_former_incarnation(stores: Stores) -> None:
    actor = stores.running()
    former = actor.incarnation
    actor.train()
    actor.reconcile()
    with pytest.raises(Closed):
        actor.store.order(former, 0)
    assert [i.klass for i in actor.store.status().incidents] == ["GangReplaced"]


def test_clean_end_is_no_incident(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    actor.checkpoint(last=True)
    actor.reconcile(actor.committed[-1])
    assert actor.store.status().incidents == ()


def test_hazard_04_checkpoint_of_a_newer_attempt_fences_the_caller(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    shown = actor.checkpoint()
    empty = stores.actor()
    with pytest.raises(Fenced, match="attempt 9"):
        empty.reconcile(msgspec.structs.replace(shown, attempt=9))
    with pytest.raises(Fenced, match="store epoch 5"):
        empty.reconcile(msgspec.structs.replace(shown, store_epoch=5))
    assert empty.store.gang().incarnation is None


# --- the B4 table ------------------------------------------------------------------------------------------------


def test_samples_follow_the_durable_step(stores: Stores) -> None:
    actor = stores.actor()
    actor.capture_all(until=12)
    actor.reconcile()
    actor.train()
    shown = actor.checkpoint()
    actor.train()
    generations = [entry.ref.generation for entry in actor.orders[2].entries if entry.ref is not None]
    actor.reconcile(shown)
    assert actor.sweep_garbage() == 4  # in a window at or below the durable step: released
    again = actor.train()  # committed, anything else: back in its window, in the same order
    assert [entry.ref.generation for entry in again.entries if entry.ref is not None] == generations
    assert actor.lease().tasks[0].sample_id == "s-000000000012"  # never committed: leased again under its sample id


def test_reconciling_twice_changes_nothing_more(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    shown = actor.checkpoint()
    actor.train()
    actor.reconcile(shown)
    before = actor.store.audit(), actor.store.usage(), list(actor.store.all_committed_ids())
    actor.reconcile(shown)
    assert (actor.store.audit(), actor.store.usage(), list(actor.store.all_committed_ids())) == before


def test_hazard_06_going_back_before_a_commit_returns_what_it_released(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    first = actor.checkpoint()
    actor.train()
    actor.train()
    second = actor.checkpoint()
    actor.sweep_garbage()
    reply = actor.reconcile(first, refused=(second.directory,))
    assert (reply.checkpoint_step, actor.store.durable_marker()) == (1, (1, 4))
    status = actor.store.status()
    assert (status.samples_lost, status.samples_ready) == (8, 8)
    assert actor.store.audit().trained_once == 4
    with pytest.raises(Conflict, match="not ready"):
        actor.train()
    actor.capture_all()
    for _ in range(4):
        actor.train()
    actor.checkpoint(last=True)
    audit = actor.store.audit()
    assert (audit.trained_once, audit.trained_twice, audit.missing) == (20, 0, 0)
    assert actor.store.status().samples_recaptured == 8


def test_crash_costs_steps_and_no_sample(stores: Stores) -> None:
    actor = stores.running()
    for _ in range(3):
        actor.train()
    actor.reconcile()
    for _ in range(5):
        actor.train()
    actor.checkpoint(last=True)
    audit = actor.store.audit()
    assert (audit.trained_once, audit.trained_twice, audit.missing) == (20, 0, 0)
    assert actor.store.status().samples_recaptured == 0


def test_hazard_07_lost_ack_before_the_commit_does_not_train_the_window_again(stores: Stores) -> None:
    actor = stores.running()
    actor.train(ack=False)
    shown = actor.checkpoint()
    reply = actor.reconcile(shown)
    assert reply.checkpoint_step == 1
    assert actor.train().step == 2
    assert actor.store.audit().trained_once == 4


def test_later_flag_cannot_make_an_older_ack_durable_or_undo_it(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    shown = actor.checkpoint()
    actor.train()
    actor.train()
    actor.reconcile(shown)
    assert actor.store.durable_marker() == (1, 4)
    actor.train()
    actor.checkpoint()
    actor.train()
    assert actor.store.durable_marker() == (2, 8)


# --- candidates --------------------------------------------------------------------------------------------------


def test_candidates_above_the_start_are_struck_for_ever(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    first = actor.checkpoint()
    actor.train()
    second = actor.checkpoint()
    actor.reconcile(first)
    assert [each.directory for each in actor.store.known_checkpoints()] == [first.directory]
    assert "CheckpointStruck" in [i.klass for i in actor.store.status().incidents]
    for valid in (True, False):
        with pytest.raises(Conflict, match="struck"):
            actor.reconcile(second, valid=valid)
    assert actor.store.durable_marker() == (1, 4)


def test_commit_of_a_struck_checkpoint_cannot_be_repeated(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    first = actor.checkpoint()
    actor.train()
    request = actor.commit_request(actor.order_checkpoint())
    actor.store.commit_checkpoint(request, "r", keep=2, now=NOW)
    actor.reconcile(first)
    with pytest.raises(Closed, match="struck"):
        actor.store.commit_checkpoint(request, "r", keep=2, now=NOW)
    assert actor.store.durable_marker() == (1, 4)


def test_hazard_40_directory_that_failed_verification_never_comes_back(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    first = actor.checkpoint()
    actor.train()
    second = actor.checkpoint()
    actor.reconcile(first, refused=(second.directory,))
    assert "CheckpointRefused" in [i.klass for i in actor.store.status().incidents]
    with pytest.raises(Conflict, match="struck"):
        actor.reconcile(second)


def test_hazard_03_finished_directory_of_a_fenced_rank_is_not_believed(stores: Stores) -> None:
    zombie = stores.running()
    zombie.train()
    order = zombie.order_checkpoint()
    forged = zombie.present(order, zombie.commit_request(order))
    empty = stores.actor()
    with pytest.raises(Conflict, match="no valid receipt"):
        empty.reconcile(forged, valid=False)
    with pytest.raises(Conflict, match="no valid receipt"):
        zombie.reconcile(forged, valid=False)
    assert empty.store.gang().incarnation is None


def test_commit_on_record_needs_no_receipt(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    shown = actor.checkpoint()
    reply = actor.reconcile(msgspec.structs.replace(shown, receipt=""), valid=False)
    assert (reply.checkpoint_step, reply.receipt) == (1, shown.receipt)


def test_other_manifest_in_a_recorded_directory_is_not_believed(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    shown = actor.checkpoint()
    with pytest.raises(Conflict, match="manifest"):
        actor.reconcile(msgspec.structs.replace(shown, manifest_digest="blake3:edited"), valid=True)


def test_checkpoint_of_another_job_is_not_believed(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    shown = actor.checkpoint()
    state = msgspec.structs.replace(shown.state, job_uid="otherjob01")
    with pytest.raises(Conflict, match="another job"):
        actor.reconcile(msgspec.structs.replace(shown, state=state))


def test_hazard_40_start_from_zero_beside_a_commit_fails_the_job(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    shown = actor.checkpoint()
    with pytest.raises(CheckpointsLost, match="CheckpointsLost: step 1"):
        actor.reconcile(refused=(shown.directory,))
    assert actor.store.status().phase == Phase.FAILED
    assert actor.store.durable_marker() == (1, 4)


def test_start_from_zero_is_possible_where_the_spec_allows_it(stores: Stores) -> None:
    actor = stores.running(allow_restart_from_zero=True)
    actor.train()
    actor.checkpoint()
    assert actor.reconcile().checkpoint_step == 0
    assert actor.store.audit().trained_once == 0
    assert actor.store.known_checkpoints() == ()
    assert actor.store.status().samples_lost == 4


def test_hazard_16_changed_inputs_are_refused_before_anything_is_fenced(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    shown = actor.checkpoint()
    state = msgspec.structs.replace(shown.state, inputs=prepared(20, name="edited").inputs)
    with pytest.raises(UserError, match="data of this job changed"):
        actor.reconcile(msgspec.structs.replace(shown, state=state))
    assert actor.store.gang().open


# --- dead letters and the line -----------------------------------------------------------------------------------


def test_verdict_of_the_ranks_is_revived_when_the_line_goes_back_before_it(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    first = actor.checkpoint()
    actor.train(verdicts=(verdict(5),))
    actor.checkpoint(verdicts=(verdict(5),))
    actor.reconcile(first)
    assert actor.store.status().samples_dead == 0
    actor.capture_all()
    assert [entry.ref is None for entry in actor.train().entries] == [False] * 4


def test_verdict_of_a_producer_stays_when_the_line_goes_back(stores: Stores) -> None:
    actor = stores.actor()
    actor.capture_all(until=3)
    lease = actor.lease()
    failure = wire.CaptureFailure(sequence=5, reason="bad", poison=True)
    actor.store.fail_capture(holder(), lease.lease_id, lease.token, [failure], now=NOW)
    actor.capture_all()
    actor.reconcile()
    actor.train()
    first = actor.checkpoint()
    actor.train()
    actor.checkpoint()
    actor.reconcile(first)
    actor.capture_all()
    assert [entry.ref is None for entry in actor.train().entries] == [False, True, False, False]


def test_record_decides_about_dead_letters_that_are_not_on_its_line(stores: Stores) -> None:
    elsewhere = stores.running()
    elsewhere.train()
    elsewhere.train(verdicts=(verdict(5),))
    shown = elsewhere.checkpoint(verdicts=(verdict(5),))
    here = stores.running()
    here.train(verdicts=(verdict(2),))
    here.checkpoint(verdicts=(verdict(2),))
    here.reconcile(shown)
    letters = here.store.status().dead_letters
    assert [letter.sequence for letter in letters] == [5]
    audit = here.store.audit()
    assert (audit.trained_once, audit.dead_lettered, audit.missing) == (7, 1, 0)


# --- a lost volume -----------------------------------------------------------------------------------------------


def test_empty_database_goes_on_from_the_record(stores: Stores) -> None:
    before = stores.running(empty=(3,))
    before.train(verdicts=(verdict(1),))
    before.train()
    shown = before.checkpoint(verdicts=(verdict(1),))
    after = stores.actor(empty=(3,))
    after.attempt = 2
    after.reconcile(shown)
    assert [i.klass for i in after.store.status().incidents] == ["MetadataRestored"]
    assert after.store.durable_marker() == (2, 8)
    assert after.store.groups_in_need(limit=1)[0].first_sequence == 8
    after.capture_all()
    for _ in range(3):
        after.train()
    after.checkpoint(last=True)
    after.sweep_garbage()
    one, other = after.store.audit(), before.store.audit()
    assert (one.trained_once, one.trained_twice, one.missing, one.dead_lettered) == (18, 0, 0, 2)
    assert other.missing == 0
    assert after.store.status().samples_committed == 19


def test_restored_before_the_inputs_are_prepared_knows_them_afterwards(stores: Stores) -> None:
    before = stores.running(10, empty=(3,))
    for _ in range(3):
        before.train()
    shown = before.checkpoint(last=True)
    after = Actor(stores.store(store_epoch=2), attempt=2)
    assert after.reconcile(shown).total_steps == 0
    with pytest.raises(UserError, match="changed since"):
        after.store.commit_prepared(prepared(10, name="edited"), now=NOW)
    with pytest.raises(UserError, match="beyond"):
        after.store.commit_prepared(prepared(5), now=NOW)
    after.store.commit_prepared(prepared(10, empty=(3,)), now=NOW)
    status, audit = after.store.status(), after.store.audit()
    assert status.phase == Phase.COMPLETE
    assert (audit.trained_once, audit.missing, audit.dead_lettered) == (9, 0, 1)
    assert (status.samples_committed, len(list(after.store.all_committed_ids()))) == (9, 9)


def test_hazard_04_generations_never_come_back_after_a_restore(stores: Stores) -> None:
    before = stores.running()
    before.train()
    shown = before.checkpoint()
    highest = max(generation_of(each.key) for each in before.store.resident(after=None, limit=100))
    after = stores.actor()
    after.reconcile(shown)
    lease = after.lease()
    assert min(task.generation for task in lease.tasks if task.capture) > max(highest, GENERATION_JUMP)


def test_facts_of_the_line_survive_a_lost_volume(stores: Stores) -> None:
    before = stores.running()
    ref = before.train().entries[0].ref
    assert ref is not None
    before.lose((0, ref.generation))
    before.capture_all(payload="drifted")
    shown = before.checkpoint()
    after = stores.actor()
    after.register(on="cpu-z")
    after.reconcile(shown)
    assert not after.store.status().exact
    assert after.store.status().samples_recaptured == 1
    after.commit(after.lease())
    assert any("cpu-z" in reason for reason in after.store.status().inexact_reasons)


def test_captures_before_the_first_reconcile_are_no_second_training(stores: Stores) -> None:
    before = stores.running()
    before.train()
    before.train()
    shown = before.checkpoint()
    after = stores.actor()
    lease = after.lease()
    after.capture_all(until=9)
    after.reconcile(shown)
    assert after.commit(lease) == ()
    assert after.store.live_leases() == ()
    after.sweep_garbage()
    resident = {generation_of(each.key) for each in after.store.resident(after=None, limit=100)}
    assert len(resident) == 1  # of the group that reaches into window 3
    after.capture_all()
    assert after.train().step == 3


def test_hazard_02_older_snapshot_takes_the_checkpoints_word(stores: Stores) -> None:
    line = stores.running()
    line.train()
    line.checkpoint()
    line.train()
    line.train()
    newest = line.checkpoint()
    snapshot = stores.running()
    snapshot.train()
    snapshot.checkpoint()
    for _ in range(3):
        snapshot.train()  # acks beyond the checkpoint whose commit the snapshot does not know
    snapshot.reconcile(newest)
    assert snapshot.store.durable_marker() == (3, 12)
    audit = snapshot.store.audit()
    assert (audit.trained_once, audit.trained_twice, audit.missing) == (12, 0, 0)
    assert snapshot.train().step == 4


# --- exactness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on", "world", "exact"), [("gpu-a", 2, True), ("gpu-b", 2, False), ("gpu-a", 3, False)])
def test_hazard_15_what_the_steps_are_computed_on_is_compared(stores: Stores, on: str, world: int, exact: bool) -> None:
    actor = stores.running()
    actor.train()
    shown = actor.checkpoint()
    actor.world_size = world
    actor.reconcile(shown, on=on)
    assert actor.store.status().exact is exact


def test_line_that_starts_anew_fixes_its_fingerprint_anew(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    actor.reconcile(on="gpu-b")
    assert actor.store.status().exact


# --- garbage -----------------------------------------------------------------------------------------------------


def test_struck_and_unfinished_directories_become_garbage(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    first = actor.checkpoint()
    actor.train()
    second = actor.checkpoint()
    stray = "step-000000002.a1.deadbeef"
    actor.reconcile(first, listed=(first.directory, second.directory, stray, "lost+found"))
    actor.capture_all()
    actor.train()
    request = actor.commit_request(actor.order_checkpoint())
    garbage = actor.store.commit_checkpoint(request, "r", keep=2, now=NOW)
    assert set(garbage) == {second.directory, stray}
    assert {each.directory for each in actor.store.known_checkpoints()} == {first.directory, request.directory}


def test_directory_that_was_not_deleted_is_named_again(stores: Stores) -> None:
    actor = stores.running()
    for _ in range(3):
        actor.train()
        actor.checkpoint(keep=1)
    old = actor.committed[0].directory
    actor.reconcile(actor.committed[-1], listed=(old,))
    actor.train()
    request = actor.commit_request(actor.order_checkpoint())
    assert old in actor.store.commit_checkpoint(request, "r", keep=1, now=NOW)


# --- objects -----------------------------------------------------------------------------------------------------


def test_sweep_must_spare_what_is_leased_or_in_a_row(stores: Stores) -> None:
    actor = stores.actor()
    committed, leased, ended = actor.lease(), actor.lease(), actor.lease()
    actor.commit(committed)
    actor.store.end_leases([ended.lease_id], reason="expired", now=NOW)
    keys = {name: [task.key for task in lease.tasks if task.key] for name, lease in
            (("committed", committed), ("leased", leased), ("ended", ended))}  # fmt: skip
    live = actor.store.live_keys([key for group in keys.values() for key in group])
    assert live == frozenset(keys["committed"] + keys["leased"])


def test_object_that_is_not_in_the_pool_is_captured_again(stores: Stores) -> None:
    actor = stores.running()
    page = actor.store.resident(after=None, limit=7)
    rest = actor.store.resident(after=page[-1].key, limit=100)
    assert (len(page), len(rest)) == (7, 13)
    assert actor.store.mark_missing([page[0].key, page[1].key], reason="not listed", now=NOW) == 2
    assert actor.store.mark_missing([page[0].key], reason="not listed", now=NOW) == 0
    assert actor.store.status().samples_lost == 2
    assert actor.store.usage().resident_objects == 18
    assert actor.store.groups_in_need(limit=1)[0].members_in_need == 2


def test_only_garbage_can_be_forgotten(stores: Stores) -> None:
    actor = stores.running()
    actor.store.forget_objects([each.key for each in actor.store.resident(after=None, limit=100)])
    assert actor.store.usage().resident_objects == 20


def test_eviction_takes_the_highest_sequence_numbers_and_stops_at_its_bound(stores: Stores) -> None:
    actor = stores.running()
    lengths = [each.length for each in actor.store.resident(after=None, limit=100)]
    assert actor.store.evictable_bytes(18) == sum(lengths[18:])
    assert actor.store.evict(nbytes=lengths[19] + 1, above_sequence=8, now=NOW) == lengths[19] + lengths[18]
    assert actor.store.groups_in_need(limit=1)[0].first_sequence == 18
    assert actor.store.evict(nbytes=10**9, above_sequence=16, now=NOW) == sum(lengths[16:18])
    assert actor.store.usage().garbage_bytes == sum(lengths[16:])
    assert actor.store.status().samples_lost == 4


def test_bytes_of_trained_windows_are_what_a_checkpoint_would_free(stores: Stores) -> None:
    actor = stores.running()
    assert actor.store.usage().trained_bytes == 0
    actor.train()
    actor.train(ack=False)
    lengths = [each.length for each in actor.store.resident(after=None, limit=4)]
    assert actor.store.usage().trained_bytes == sum(lengths)


def test_no_object_or_lease_is_left_at_the_end(stores: Stores) -> None:
    actor = stores.running(epochs=2)
    while actor.step < actor.store.status().total_steps:
        actor.train()
    actor.checkpoint(last=True)
    actor.sweep_garbage()
    assert actor.store.usage().resident_objects == 0
    assert actor.store.live_leases() == ()
    assert actor.store.groups_in_need(limit=1) == ()


def test_job_fails_once_and_the_first_reason_stays(stores: Stores) -> None:
    store = stores.actor().store
    store.fail_job("the first", now=NOW)
    store.fail_job("the second", now=NOW)
    assert (store.status().phase, store.status().failure) == (Phase.FAILED, "the first")


def test_incidents_are_bounded_and_the_newest_are_shown(stores: Stores) -> None:
    actor = stores.running()
    for number in range(300):
        actor.store.close_incarnation(actor.incarnation, klass="Hang", message=str(number), now=NOW + number)
        actor.reconcile()
    shown = actor.store.status().incidents
    assert len(shown) == 64
    assert shown[-1].message == "299"


def test_a_reason_for_other_bits_is_told_once(stores: Stores) -> None:
    actor = stores.running()
    actor.train()
    shown = actor.checkpoint()
    for _ in range(2):
        actor.reconcile(shown, on="gpu-b")
    (reason,) = actor.store.status().inexact_reasons
    assert "gpu-b" in reason


def test_unknown_incarnation_of_a_closed_call_is_harmless(stores: Stores) -> None:
    actor = stores.running()
    actor.store.close_incarnation(Incarnation("e" * 32), klass="Hang", message="", now=NOW)
    assert actor.store.gang().open
