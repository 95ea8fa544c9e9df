"""The metadata store's conformance suite, first part: inputs, leases, commits, poison."""

import msgspec
import pytest

from eyas_contract import wire
from eyas_contract.errors import Conflict, Fenced, UserError
from eyas_contract.ids import LeaseToken, generation_of, store_epoch_of
from support.jobs import NOW, Actor, fingerprint, holder, prepared
from support.metadata_stores import Stores


def test_first_inputs_win_and_equal_ones_are_harmless(stores: Stores) -> None:
    actor = stores.actor(8)
    actor.store.commit_prepared(prepared(8), now=NOW)
    with pytest.raises(UserError, match="prepared already"):
        actor.store.commit_prepared(prepared(8, name="edited"), now=NOW)
    assert actor.store.prepared() == prepared(8)
    assert actor.store.total_samples() == 8


def test_inputs_whose_arrays_do_not_fit_are_refused_whole(stores: Stores) -> None:
    store = stores.store()
    with pytest.raises(UserError, match="token_counts"):
        store.commit_prepared(msgspec.structs.replace(prepared(8), token_counts=prepared(7).token_counts), now=NOW)
    with pytest.raises(UserError, match="empty_prompts"):
        store.commit_prepared(prepared(8, empty=(8,)), now=NOW)
    assert store.prepared() is None


def test_sequence_ends_at_max_steps_before_the_epochs_end(stores: Stores) -> None:
    actor = stores.actor(20, max_steps=3)
    assert actor.store.total_samples() == 12
    assert actor.store.status().total_steps == 3


def test_prompt_without_supervised_tokens_is_a_hole_in_every_epoch(stores: Stores) -> None:
    actor = stores.running(8, empty=(5,), epochs=2)
    status = actor.store.status()
    assert status.samples_dead == 2
    assert {letter.source for letter in status.dead_letters} == {"prepare"}
    holes = [entry.sequence for _ in range(4) for entry in actor.train().entries if entry.ref is None]
    assert holes == [letter.sequence for letter in status.dead_letters]


def test_groups_are_leased_by_lowest_sequence_number(stores: Stores) -> None:
    actor = stores.actor(20)
    assert [need.first_sequence for need in actor.store.groups_in_need(limit=3)] == [0, 3, 6]
    actor.capture_all(until=9)
    actor.reconcile()
    order = actor.train()
    lost = order.entries[1].ref
    assert lost is not None
    assert actor.lose((lost.sequence, lost.generation)) == 1
    assert [need.first_sequence for need in actor.store.groups_in_need(limit=2)] == [1, 9]


def test_leased_group_is_in_need_of_nothing(stores: Stores) -> None:
    actor = stores.actor()
    lease = actor.lease()
    assert actor.store.groups_in_need(limit=1)[0].group == lease.group + 1
    with pytest.raises(Conflict, match="leased already"):
        actor.lease(group=lease.group)
    assert [live.lease_id for live in actor.store.live_leases()] == [lease.lease_id]


def test_same_request_gets_the_same_lease(stores: Stores) -> None:
    actor = stores.actor()
    lease = actor.lease(request="r1")
    assert actor.lease(group=lease.group + 1, request="r1") == lease
    assert actor.store.granted(holder(), "r1") == lease
    assert len(actor.store.live_leases()) == 1
    actor.store.end_leases([lease.lease_id], reason="expired", now=NOW)
    assert actor.store.granted(holder(), "r1") is None


def test_keys_are_never_used_twice_and_generations_only_rise(stores: Stores) -> None:
    actor = stores.actor()
    seen: list[str] = []
    for _ in range(4):
        lease = actor.lease()
        seen += [task.key for task in lease.tasks if task.key]
        actor.store.end_leases([lease.lease_id], reason="expired", now=NOW)
    generations = [generation_of(key) for key in seen]
    assert generations == sorted(set(generations))
    assert {store_epoch_of(key) for key in seen} == {1}


def test_hazard_15_shape_of_a_group_counts_dead_and_resident_members(stores: Stores) -> None:
    actor = stores.actor(20)
    first = actor.lease()
    longest = max(first.tasks, key=lambda task: task.num_tokens)
    failure = wire.CaptureFailure(sequence=longest.sequence, reason="bad utf-8", poison=True)
    actor.store.fail_capture(holder(), first.lease_id, first.token, [failure], now=NOW)
    again = actor.lease(group=first.group)
    assert again.padded_length == first.padded_length == longest.num_tokens
    assert [task.capture for task in again.tasks] == [task != longest for task in first.tasks]
    assert [task.num_tokens for task in again.tasks] == [task.num_tokens for task in first.tasks]


def test_commit_makes_samples_ready_in_commit_order(stores: Stores) -> None:
    actor = stores.actor(9)
    first, second = actor.lease(), actor.lease()
    assert actor.commit(second) == (3, 4, 5)
    assert actor.commit(first) == (0, 1, 2)
    assert [int(each[2:]) for each in actor.store.all_committed_ids()] == [3, 4, 5, 0, 1, 2]
    status = actor.store.status()
    assert (status.samples_ready, status.samples_committed, status.live_leases) == (6, 6, 0)


def test_repeated_commit_changes_nothing(stores: Stores) -> None:
    actor = stores.actor()
    lease = actor.lease()
    assert actor.commit(lease) == actor.commit(lease) == (0, 1, 2)
    assert actor.store.status().samples_committed == 3
    assert actor.store.usage().resident_objects == 3


def test_partial_commit_keeps_the_lease_and_frees_its_share_of_the_reservation(stores: Stores) -> None:
    actor = stores.actor()
    lease = actor.lease()
    refs = actor.refs_of(lease)
    assert actor.store.usage().reserved_bytes == 1000
    assert actor.store.commit_samples(holder(), lease.lease_id, lease.token, refs[:1], now=NOW) == (0,)
    usage = actor.store.usage()
    assert (usage.reserved_bytes, usage.resident_bytes, usage.live_leases) == (666, refs[0].length, 1)
    assert actor.store.commit_samples(holder(), lease.lease_id, lease.token, refs, now=NOW) == (0, 1, 2)
    assert actor.store.usage().reserved_bytes == 0


def test_one_bad_ref_refuses_the_whole_commit(stores: Stores) -> None:
    actor = stores.actor()
    lease = actor.lease()
    good = actor.refs_of(lease)
    foreign = msgspec.structs.replace(good[2], key=good[1].key)
    with pytest.raises(UserError, match="minted"):
        actor.store.commit_samples(holder(), lease.lease_id, lease.token, [*good[:2], foreign], now=NOW)
    assert actor.store.status().samples_ready == 0
    assert actor.store.usage().resident_objects == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_id": "s-000000000099"}, "name"),
        ({"schema_version": 2}, "schema"),
        ({"length": 0}, "length"),
        ({"payload_digest": ""}, "digests"),
        ({"num_tokens": 4096}, "tokens"),
    ],
    ids=["name", "schema", "length", "digest", "tokens"],
)
def test_ref_that_contradicts_what_is_known_is_refused(stores: Stores, change: dict[str, object], message: str) -> None:
    actor = stores.actor()
    lease = actor.lease()
    ref = msgspec.structs.replace(actor.refs_of(lease)[0], **change)
    with pytest.raises(UserError, match=message):
        actor.store.commit_samples(holder(), lease.lease_id, lease.token, [ref], now=NOW)
    assert actor.store.status().samples_ready == 0


def test_stale_lease_cannot_commit(stores: Stores) -> None:
    actor = stores.actor()
    stale = actor.lease()
    actor.store.end_leases([stale.lease_id], reason="expired", now=NOW)
    fresh = actor.lease(group=stale.group)
    with pytest.raises(Conflict, match="over"):
        actor.commit(stale)
    assert actor.store.status().samples_ready == 0
    assert actor.commit(fresh) == (0, 1, 2)


def test_forged_token_cannot_commit(stores: Stores) -> None:
    actor = stores.actor()
    lease = actor.lease()
    with pytest.raises(Fenced):
        actor.store.commit_samples(holder(), lease.lease_id, LeaseToken("0" * 32), actor.refs_of(lease), now=NOW)
    with pytest.raises(Conflict, match="not known"):
        actor.store.commit_samples(holder(), "nobody", lease.token, [], now=NOW)
    assert actor.store.status().samples_ready == 0


def test_other_bytes_under_a_committed_key_are_refused(stores: Stores) -> None:
    actor = stores.actor()
    lease = actor.lease()
    refs = actor.refs_of(lease)
    actor.store.commit_samples(holder(), lease.lease_id, lease.token, refs[:1], now=NOW)
    other = msgspec.structs.replace(refs[0], digest="blake3:other")
    with pytest.raises(UserError, match="another digest"):
        actor.store.commit_samples(holder(), lease.lease_id, lease.token, [other], now=NOW)


def test_newer_ordinal_ends_what_its_predecessor_held(stores: Stores) -> None:
    actor = stores.actor()
    lease = actor.lease()
    newer = holder(ordinal=2)
    assert actor.store.register(newer, fingerprint("cpu-a"), now=NOW) == (lease.lease_id,)
    assert actor.store.register(newer, fingerprint("cpu-a"), now=NOW) == ()
    with pytest.raises(Fenced, match="replaced"):
        actor.commit(lease)
    with pytest.raises(Fenced, match="replaced"):
        actor.register(holder(ordinal=1, restart=9))
    assert actor.lease(newer, group=lease.group).group == lease.group


def test_restarted_child_of_a_pod_replaces_itself(stores: Stores) -> None:
    actor = stores.actor()
    lease = actor.lease()
    actor.register(holder(restart=1))
    assert actor.store.live_leases() == ()
    with pytest.raises(Fenced):
        actor.store.granted(holder(), "r")
    assert actor.store.suspects(limit=5)[0].group == lease.group


def test_producer_that_is_unknown_here_must_register(stores: Stores) -> None:
    actor = stores.actor()
    with pytest.raises(Conflict, match="register"):
        actor.lease(holder(index=7), group=0)
    with pytest.raises(Conflict, match="register"):
        actor.lease(holder(ordinal=3), group=0)


def test_hazard_09_failure_that_is_not_poison_is_tried_again(stores: Stores) -> None:
    actor = stores.actor()
    lease = actor.lease()
    failure = wire.CaptureFailure(sequence=1, reason="out of memory", poison=False)
    assert not actor.store.fail_capture(holder(), lease.lease_id, lease.token, [failure], now=NOW)
    assert actor.store.status().samples_dead == 0
    assert actor.store.groups_in_need(limit=1)[0].members_in_need == 3
    assert not actor.store.fail_capture(holder(), lease.lease_id, lease.token, [failure], now=NOW)


def test_hazard_09_deaths_around_a_sample_make_no_dead_letter_however_many(stores: Stores) -> None:
    actor = stores.actor()
    for reason in ("expired", "replaced", "deadline") * 5:
        actor.store.end_leases([actor.lease().lease_id], reason=reason, now=NOW)
    actor.capture_all()
    for process in range(5):
        actor.reconcile()
        refs = [entry.ref for entry in actor.train(ack=process % 2 == 0).entries]
        assert None not in refs
        actor.store.close_incarnation(actor.incarnation, klass="ChildExited", message="SIGKILL", now=NOW)
    status = actor.store.status()
    assert (status.samples_dead, status.dead_letters, status.failure) == (0, (), "")
    actor.reconcile()
    for _ in range(5):
        actor.train()
    actor.checkpoint(last=True)
    assert actor.store.audit().trained_once == 20


def test_hazard_10_poison_before_the_seal_is_a_hole_and_moves_nothing(stores: Stores) -> None:
    actor = stores.actor()
    lease = actor.lease()
    _poison(actor, lease, 1)
    actor.capture_all()
    actor.reconcile()
    order = actor.train()
    assert [entry.sequence for entry in order.entries] == [0, 1, 2, 3]
    assert [entry.ref is None for entry in order.entries] == [False, True, False, False]
    assert order.version == 1
    assert [entry.sequence for entry in actor.train().entries] == [4, 5, 6, 7]
    assert actor.store.status().total_steps == 5
    assert actor.store.status().exact


def test_hazard_11_poison_after_the_seal_makes_a_new_version_and_restarts_who_was_handed_the_old(
    stores: Stores,
) -> None:
    actor = stores.running()
    order = actor.train()
    ref = order.entries[2].ref
    assert ref is not None
    actor.lose((2, ref.generation))
    assert _poison(actor, actor.lease(), 2)
    gang = actor.store.gang()
    assert not gang.open
    assert not actor.store.status().exact
    actor.reconcile()
    again = actor.train()
    assert again.version == 2
    assert [entry.ref is None for entry in again.entries] == [False, False, True, False]


def test_hazard_11_poison_in_a_sealed_window_that_nobody_holds_restarts_nobody(stores: Stores) -> None:
    actor = stores.running()
    ref = actor.train().entries[2].ref
    assert ref is not None
    actor.lose((2, ref.generation))
    actor.reconcile()
    assert not _poison(actor, actor.lease(), 2)
    assert actor.store.gang().open
    assert actor.train().version == 2


def test_recapture_with_other_bits_is_accepted_counted_and_said(stores: Stores) -> None:
    actor = stores.running()
    refs = [entry.ref for entry in actor.train().entries[:2] if entry.ref is not None]
    actor.lose(*((ref.sequence, ref.generation) for ref in refs))
    assert actor.store.status().exact
    actor.capture_all(payload="q")
    status = actor.store.status()
    assert (status.capture_drift, status.samples_recaptured, status.exact) == (2, 2, False)
    assert "captureDrift" in status.inexact_reasons[0]


def test_recapture_with_the_same_bits_stays_exact(stores: Stores) -> None:
    actor = stores.running()
    ref = actor.train().entries[0].ref
    assert ref is not None
    actor.lose((ref.sequence, ref.generation))
    actor.capture_all()
    status = actor.store.status()
    assert (status.capture_drift, status.samples_recaptured, status.exact) == (0, 1, True)
    assert status.samples_committed == 20


def test_hazard_42_first_commit_fixes_the_capture_fingerprint(stores: Stores) -> None:
    actor = stores.actor()
    actor.commit(actor.lease())
    assert actor.store.status().exact
    other = actor.register(holder(index=1), on="cpu-b")
    actor.commit(actor.lease(other), other)
    status = actor.store.status()
    assert not status.exact
    assert "cpu-b" in status.inexact_reasons[0]


def test_deaths_are_counted_for_the_group_and_forgotten_after_a_commit(stores: Stores) -> None:
    actor = stores.actor()
    for reason in ("expired", "returned", "replaced", "deadline"):
        actor.store.end_leases([actor.lease().lease_id], reason=reason, now=NOW)
    suspect = actor.store.suspects(limit=1)[0]
    assert (suspect.group, suspect.deaths, len(suspect.prompts)) == (0, 2, 3)
    assert actor.store.groups_in_need(limit=1)[0].overruns == 1
    actor.commit(actor.lease())
    assert actor.store.suspects(limit=1) == ()


def test_ingested_object_serves_later_epochs_without_a_capture(stores: Stores) -> None:
    actor = stores.running(8, epochs=2, retain_objects=True)
    assert actor.store.usage().resident_objects == 8
    assert actor.store.groups_in_need(limit=1) == ()
    for _ in range(2):
        actor.train()
    actor.checkpoint()
    assert actor.store.releasable(limit=100) == ()
    for _ in range(2):
        actor.train()
    actor.checkpoint(last=True)
    assert actor.sweep_garbage() == 8
    audit = actor.store.audit()
    assert (audit.trained_once, audit.missing, audit.resident_objects) == (16, 0, 0)


def test_hazard_34_online_capture_is_never_shared_between_epochs(stores: Stores) -> None:
    actor = stores.running(8, epochs=2)
    assert actor.store.usage().resident_objects == 16
    for _ in range(2):
        actor.train()
    actor.checkpoint()
    assert actor.sweep_garbage() == 8


def test_hazard_34_second_epoch_is_captured_alike_whether_the_first_one_is_resident_or_gone(stores: Stores) -> None:
    def second_epoch(*, gone: bool) -> list[tuple[int, list[tuple[int, bool]]]]:
        actor = stores.actor(12, epochs=2)
        actor.capture_all(until=12)
        actor.reconcile()
        for _ in range(3):
            actor.train()
        if gone:
            actor.checkpoint()
            assert actor.sweep_garbage() == 12
        assert actor.store.usage().resident_objects == (0 if gone else 12)
        leases = []
        while needs := actor.store.groups_in_need(limit=1):
            leases.append(actor.lease(group=needs[0].group))
        return [(each.padded_length, [(task.sequence, task.capture) for task in each.tasks]) for each in leases]

    captures = second_epoch(gone=False)
    assert captures == second_epoch(gone=True)
    assert [task for _, tasks in captures for task in tasks] == [(sequence, True) for sequence in range(12, 24)]


def test_ingested_object_that_was_evicted_is_ingested_again(stores: Stores) -> None:
    actor = stores.actor(8, epochs=2, retain_objects=True)
    actor.capture_all(until=8)
    actor.reconcile()
    for _ in range(2):
        actor.train()
    actor.checkpoint()
    freed = actor.store.evict(nbytes=1, above_sequence=8, now=NOW)
    assert freed > 0
    assert actor.sweep_garbage() == 1
    need = actor.store.groups_in_need(limit=1)[0]
    assert need.members_in_need == 1
    actor.capture_all()
    for _ in range(2):
        actor.train()
    actor.checkpoint(last=True)
    assert actor.store.audit().trained_once == 16


def test_window_of_resident_objects_is_ready_without_a_producer(stores: Stores) -> None:
    actor = stores.actor(4, epochs=2, retain_objects=True)
    lease = actor.lease()
    actor.commit(lease)
    actor.commit(actor.lease())
    actor.reconcile()
    actor.train()
    assert actor.store.window_ready(2)
    order = actor.train()
    used = {entry.ref.generation for entry in order.entries if entry.ref is not None}
    assert used == {entry.ref.generation for entry in actor.orders[1].entries if entry.ref is not None}
    assert [entry.ref.sequence for entry in order.entries if entry.ref is not None] == [4, 5, 6, 7]


def test_lost_ingested_object_is_lost_for_all_its_uses(stores: Stores) -> None:
    actor = stores.running(4, epochs=2, retain_objects=True)
    ref = actor.train().entries[0].ref
    assert ref is not None
    assert actor.store.window_ready(2)
    assert actor.lose((ref.sequence, ref.generation)) == 2
    assert not actor.store.window_ready(2)


def test_later_epochs_store_leases_nothing_before_it_knows_what_is_trained(stores: Stores) -> None:
    actor = stores.actor(store_epoch=2)
    assert actor.store.groups_in_need(limit=1) == ()
    actor.reconcile()
    assert actor.store.groups_in_need(limit=1)[0].group == 0


def _poison(actor: Actor, lease: wire.CaptureLease, sequence: int) -> bool:
    failure = wire.CaptureFailure(sequence=sequence, reason="not a number", poison=True)
    return actor.store.fail_capture(holder(), lease.lease_id, lease.token, [failure], now=NOW)


def test_resident_objects_serve_every_group_that_was_leased_before(stores: Stores) -> None:
    actor = stores.actor(3, epochs=3, retain_objects=True)
    leases = [actor.lease() for _ in range(3)]
    actor.store.end_leases([lease.lease_id for lease in leases], reason="expired", now=NOW)
    actor.commit(actor.lease(group=0))
    assert actor.store.groups_in_need(limit=1) == ()
    assert actor.store.usage().resident_objects == 3
