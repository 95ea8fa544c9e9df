"""Stores with one guard taken out: each must be caught by the claims that speak of it.

A suite that stays green on a broken store proves nothing. Every row names what is broken, how, and the claims of the
conformance suite that must then fail; the random jobs must catch the worst of them without being told.
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from eyas_contract import wire
from eyas_contract.errors import EyasError
from eyas_contract.ids import LeaseToken
from eyas_runtime.core import recovery
from eyas_runtime.metadata.port import JobFacts
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore, orders
from eyas_runtime.metadata.sqlite.base import GangRow
from eyas_runtime.metadata.sqlite.schema import QUERIES
from support.metadata_machine import StoreMachine
from support.metadata_stores import Stores

Patch = Callable[[pytest.MonkeyPatch], type[SQLiteMetadataStore]]


@dataclass(frozen=True)
class Mutant:
    """One broken store."""

    name: str
    patch: Patch
    claims: tuple[str, ...]


def _query(name: str, old: str, new: str) -> Patch:
    """A store whose statement `name` says `new` where it said `old`."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> type[SQLiteMetadataStore]:
        assert old in QUERIES[name], f"{name} does not say {old!r} any more: the mutant must follow"
        monkeypatch.setitem(QUERIES, name, QUERIES[name].replace(old, new))
        return SQLiteMetadataStore

    return patch


def _no_effect(name: str) -> Patch:
    """A store that forgets to do what the statement `name` does."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> type[SQLiteMetadataStore]:
        text = QUERIES[name]
        monkeypatch.setitem(QUERIES, name, f"{text} AND 0" if "WHERE" in text else f"{text} WHERE 0")
        return SQLiteMetadataStore

    return patch


def _class(kind: type[SQLiteMetadataStore]) -> Patch:
    return lambda _: kind


class WithoutFencing(SQLiteMetadataStore):
    """Whoever names an incarnation may write."""

    def _open_gang(self, incarnation: str) -> GangRow:
        row = self._db.one("incarnation", incarnation=incarnation)
        assert row is not None
        return GangRow(*row)


class WithoutAttempts(SQLiteMetadataStore):
    """Attempts are not compared."""

    def _assert_attempt(self, attempt: int) -> None:
        """Let everybody in."""


class WithDurableFlag(SQLiteMetadataStore):
    """One flag for the whole run, as in SpecForge: once something was durable, every ack is."""

    def record_train_ack(self, request: wire.AckRequest, *, now: float) -> None:
        super().record_train_ack(request, now=now)
        if self._progress().durable_step:
            with self._db.transaction():
                self._db.run("set_durable_step", step=request.step)


class WithEagerRelease(SQLiteMetadataStore):
    """Features are deleted as soon as they are acked."""

    def record_train_ack(self, request: wire.AckRequest, *, now: float) -> None:
        super().record_train_ack(request, now=now)
        places = self._schedule.window(request.step)
        with self._db.transaction():
            self._release_below(low=places.start, high=places.stop)


class WithFreshOrders(SQLiteMetadataStore):
    """A repeated order is made anew from what is there now."""

    def order(self, incarnation: str, ordinal: int) -> wire.Order | None:  # type: ignore[override]
        stored = super().order(incarnation, ordinal)  # type: ignore[arg-type]
        if stored is None or stored.kind != "train":
            return stored
        return wire.Order(
            ordinal=ordinal,
            kind="train",
            step=stored.step,
            version=stored.version,
            entries=self._entries(self._schedule.window(stored.step)),
        )


class WithoutVersions(SQLiteMetadataStore):
    """A producer's verdict changes a sealed window in place."""

    def _change_windows(self, poison: object, *, now: float) -> bool:
        return False


class WithoutMaxSteps(SQLiteMetadataStore):
    """The sequence is every epoch whatever `maxSteps` says."""

    def __init__(self, path: Path, wanted: JobFacts) -> None:
        super().__init__(path, msgspec.structs.replace(wanted, max_steps=None))


class WithSharedCaptures(SQLiteMetadataStore):
    """What was captured in one epoch serves the next one while it is there, online as well."""

    def __init__(self, path: Path, wanted: JobFacts) -> None:
        super().__init__(path, msgspec.structs.replace(wanted, retain_objects=True))


class WithPoisonByDeath(SQLiteMetadataStore):
    """Whatever ends a capture is held against its samples."""

    def fail_capture(
        self,
        holder: wire.Holder,
        lease_id: str,
        token: LeaseToken,
        failures: Sequence[wire.CaptureFailure],
        *,
        now: float,
    ) -> bool:
        blamed = [msgspec.structs.replace(failure, poison=True) for failure in failures]
        return super().fail_capture(holder, lease_id, token, blamed, now=now)

    def end_leases(self, lease_ids: Iterable[str], *, reason: str, now: float) -> None:
        ended = set(lease_ids)
        firsts = [live.group * self._facts.group_size for live in self.live_leases() if live.lease_id in ended]
        super().end_leases(ended, reason=reason, now=now)
        with self._db.transaction():
            self._choose((first, reason, "producer") for first in firsts)
            self._kill_chosen(durable_end=0)


def _any_inputs(monkeypatch: pytest.MonkeyPatch) -> type[SQLiteMetadataStore]:
    monkeypatch.setattr(recovery, "_same_inputs", lambda shown, known: None)
    return SQLiteMetadataStore


class WithSnapshotsWord(SQLiteMetadataStore):
    """What a checkpoint holds counts for what was durable when it was written: the step before its own."""

    def _return_to(self, step: int, shown: wire.PresentedCheckpoint | None, *, known: bool, now: float) -> None:
        super()._return_to(step if known else step - 1, shown, known=known, now=now)


class WithBlame(SQLiteMetadataStore):
    """Whatever was at hand at two deaths is poison: a window's first sample, a group's members."""

    def _close_gang(self, gang: GangRow, *, klass: str, message: str, now: float) -> None:
        super()._close_gang(gang, klass=klass, message=message, now=now)
        if gang.number > 1:
            self._condemn([self._schedule.window(gang.acked_step + 1).start])

    def _end(self, lease_ids: Iterable[str], *, reason: str) -> None:
        super()._end(lease_ids, reason=reason)
        if any(need.overruns > 1 for need in self.groups_in_need(limit=1)) or any(
            suspect.deaths > 1 for suspect in self.suspects(limit=1)
        ):
            self._condemn([0])

    def _condemn(self, sequences: list[int]) -> None:
        self._choose((sequence, "killed them twice", "producer") for sequence in sequences)
        self._kill_chosen(durable_end=0)


class WithShorterHorizon(SQLiteMetadataStore):
    """The dead are not counted among what is to be trained."""

    def _reply(self, request: wire.ReconcileRequest) -> wire.ReconcileReply:
        reply = super()._reply(request)
        live = self._schedule.total - self.status().samples_dead
        return msgspec.structs.replace(reply, total_steps=-(-live // self._facts.window_size))


def _close_up(monkeypatch: pytest.MonkeyPatch) -> type[SQLiteMetadataStore]:
    real = orders.content
    monkeypatch.setattr(orders, "content", lambda *places: tuple(e for e in real(*places) if e.ref is not None))
    return SQLiteMetadataStore


def _believe_everything(monkeypatch: pytest.MonkeyPatch) -> type[SQLiteMetadataStore]:
    monkeypatch.setattr(recovery, "_believed", lambda shown, known, receipt_valid: False)
    return SQLiteMetadataStore


def _no_jump(monkeypatch: pytest.MonkeyPatch) -> type[SQLiteMetadataStore]:
    monkeypatch.setattr(recovery, "GENERATION_JUMP", -100)
    return SQLiteMetadataStore


def _zero_is_fine(monkeypatch: pytest.MonkeyPatch) -> type[SQLiteMetadataStore]:
    class Permissive(SQLiteMetadataStore):
        """Starting at 0 needs no permission."""

        def _knowledge(self, process: str) -> recovery.Knowledge:
            return replace(super()._knowledge(process), allow_restart_from_zero=True)

    return Permissive


MUTANTS = (
    Mutant(
        "closed incarnations may write",
        _class(WithoutFencing),
        (
            "training.test_closed_incarnation_can_change_nothing",
            "training.test_older_attempt_can_change_nothing",
            "recovery.test_reconcile_closes_the_former_incarnation",
        ),
    ),
    Mutant("attempts are not compared", _class(WithoutAttempts), ("training.test_older_attempt_can_change_nothing",)),
    Mutant(
        "a record says what was durable when it was made",
        _class(WithSnapshotsWord),
        (
            "hazards.test_hazard_02_a_record_made_before_its_commit_says_what_the_commit_made_durable",
            "recovery.test_hazard_02_older_snapshot_takes_the_checkpoints_word",
        ),
    ),
    Mutant(
        "who was there at two deaths is poison",
        _class(WithBlame),
        (
            "hazards.test_hazard_09_ranks_killed_again_and_again_in_one_window_condemn_none_of_its_samples",
            "hazards.test_hazard_09_producers_that_die_around_one_prompt_condemn_none_of_its_group",
        ),
    ),
    Mutant(
        "dead letters shorten the horizon",
        _class(WithShorterHorizon),
        ("hazards.test_hazard_10_dead_letters_change_no_later_window_and_no_horizon",),
    ),
    Mutant(
        "dead letters close up the order",
        _close_up,
        (
            "hazards.test_hazard_10_dead_letters_change_no_later_window_and_no_horizon",
            "capture.test_hazard_10_poison_before_the_seal_is_a_hole_and_moves_nothing",
            "training.test_hazard_12_window_with_only_holes_is_ordered_all_the_same",
        ),
    ),
    Mutant(
        "a loss names no generation",
        _query("pick_lost", "AND object = :generation", ""),
        ("training.test_loss_is_about_the_generation_that_was_seen",),
    ),
    Mutant(
        "durable is one flag",
        _class(WithDurableFlag),
        ("recovery.test_later_flag_cannot_make_an_older_ack_durable_or_undo_it",),
    ),
    Mutant(
        "acked features are released",
        _class(WithEagerRelease),
        (
            "training.test_ack_is_progress_and_not_durability",
            "training.test_nothing_is_released_before_a_commit_contains_it",
            "recovery.test_crash_costs_steps_and_no_sample",
        ),
    ),
    Mutant(
        "orders are made anew",
        _class(WithFreshOrders),
        ("training.test_order_is_the_same_however_often_it_is_asked_for",),
    ),
    Mutant(
        "sealed windows have no versions",
        _class(WithoutVersions),
        ("capture.test_hazard_11_poison_after_the_seal_makes_a_new_version_and_restarts_who_was_handed_the_old",),
    ),
    Mutant(
        "a lease's token is not compared",
        _query("lease", "SELECT number, token", "SELECT number, '" + "0" * 32 + "'"),
        ("capture.test_stale_lease_cannot_commit",),
    ),
    Mutant(
        "an ended lease may commit",
        _query("lease", "state, ended_because", "state, NULL"),
        ("capture.test_stale_lease_cannot_commit",),
    ),
    Mutant(
        "generations are used again",
        _no_effect("set_generation"),
        ("capture.test_keys_are_never_used_twice_and_generations_only_rise",),
    ),
    Mutant(
        "a commit does not ack its windows",
        _no_effect("raise_ack"),
        ("training.test_hazard_07_commit_acks_every_window_up_to_it",),
    ),
    Mutant(
        "struck checkpoints come back",
        _no_effect("strike_checkpoint"),
        (
            "recovery.test_candidates_above_the_start_are_struck_for_ever",
            "recovery.test_hazard_40_directory_that_failed_verification_never_comes_back",
        ),
    ),
    Mutant(
        "receipts are not asked for",
        _believe_everything,
        (
            "recovery.test_hazard_03_finished_directory_of_a_fenced_rank_is_not_believed",
            "recovery.test_checkpoint_of_another_job_is_not_believed",
        ),
    ),
    Mutant(
        "a restored counter goes back",
        _no_jump,
        (
            "recovery.test_hazard_04_generations_never_come_back_after_a_restore",
            "hazards.test_hazard_04_zombies_of_before_a_restore_can_write_nothing",
        ),
    ),
    Mutant(
        "starting at 0 is always allowed",
        _zero_is_fine,
        ("recovery.test_hazard_40_start_from_zero_beside_a_commit_fails_the_job",),
    ),
    Mutant(
        "the ledger is not cut",
        _no_effect("drop_trained_above"),
        ("recovery.test_hazard_06_going_back_before_a_commit_returns_what_it_released",),
    ),
    Mutant(
        "the durable step only rises",
        _query("set_durable_step", "durable_step = :step", "durable_step = max(durable_step, :step)"),
        ("recovery.test_hazard_06_going_back_before_a_commit_returns_what_it_released",),
    ),
    Mutant(
        "verdicts of ranks stay dead for ever",
        _no_effect("move_range_of_ranks"),
        ("recovery.test_verdict_of_the_ranks_is_revived_when_the_line_goes_back_before_it",),
    ),
    Mutant(
        "the sweep forgets leases",
        _query("is_live_key", "l.state = 'live'", "l.state = 'ended'"),
        ("recovery.test_sweep_must_spare_what_is_leased_or_in_a_row",),
    ),
    Mutant(
        "eviction begins at the lowest",
        _query("pick_to_evict", "lowest DESC", "lowest ASC"),
        ("recovery.test_eviction_takes_the_highest_sequence_numbers_and_stops_at_its_bound",),
    ),
    Mutant(
        "two leases for one group",
        _query("live_lease_of_group", "state = 'live'", "state = 'none'"),
        ("capture.test_leased_group_is_in_need_of_nothing",),
    ),
    Mutant(
        "deaths are held against samples",
        _class(WithPoisonByDeath),
        (
            "capture.test_hazard_09_failure_that_is_not_poison_is_tried_again",
            "capture.test_hazard_09_deaths_around_a_sample_make_no_dead_letter_however_many",
        ),
    ),
    Mutant(
        "max steps are forgotten",
        _class(WithoutMaxSteps),
        ("training.test_hazard_14_what_max_steps_leaves_out_is_never_captured_and_not_missing_at_the_end",),
    ),
    Mutant(
        "inputs are not compared",
        _any_inputs,
        ("recovery.test_hazard_16_changed_inputs_are_refused_before_anything_is_fenced",),
    ),
    Mutant(
        "online captures serve later epochs",
        _class(WithSharedCaptures),
        (
            "capture.test_hazard_34_online_capture_is_never_shared_between_epochs",
            "capture.test_hazard_34_second_epoch_is_captured_alike_whether_the_first_one_is_resident_or_gone",
        ),
    ),
    Mutant(
        "the first capture fixes no fingerprint",
        _no_effect("set_capture_fingerprint"),
        ("capture.test_hazard_42_first_commit_fixes_the_capture_fingerprint",),
    ),
    Mutant(
        "every window is one that is trained again",
        _query("trained_again", "UNBOUNDED PRECEDING AND 1 PRECEDING", "UNBOUNDED PRECEDING AND CURRENT ROW"),
        (
            "counters.test_samples_are_replayed_when_their_window_is_trained_again_and_not_before",
            "counters.test_a_new_database_begins_with_nothing_replayed",
        ),
    ),
    Mutant(
        "only the last start of the ranks is remembered",
        _query("trained_again", "UNBOUNDED PRECEDING AND 1 PRECEDING", "1 PRECEDING AND 1 PRECEDING"),
        ("counters.test_a_window_that_is_trained_three_times_is_replayed_twice",),
    ),
    Mutant(
        "windows are replayed before they are trained again",
        _query("trained_again", "min(acked_step, max(acked_step) OVER", "(max(acked_step) OVER"),
        ("counters.test_samples_are_replayed_when_their_window_is_trained_again_and_not_before",),
    ),
    Mutant(
        "lost samples of trained windows are taken for stored ones",
        _query("in_need_in_range", "'pending', 'lost'", "'pending'"),
        ("counters.test_what_waits_is_in_the_store_and_in_no_acked_window",),
    ),
    Mutant(
        "garbage is not kept apart",
        _query("forget_garbage", "AND state = 'garbage'", ""),
        ("recovery.test_only_garbage_can_be_forgotten",),
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_broken_store_is_caught_by_every_claim_that_speaks_of_it(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number, name in enumerate(mutant.claims):
        module, claim = name.split(".")
        folder = tmp_path / str(number)
        folder.mkdir()
        _assert_green(module, claim, Stores(SQLiteMetadataStore, folder))
    kind = mutant.patch(monkeypatch)
    for number, name in enumerate(mutant.claims):
        module, claim = name.split(".")
        stores = Stores(kind, tmp_path / str(number))
        stores.opened = []
        stores.folder = tmp_path / f"{number}-broken"
        stores.folder.mkdir()
        with pytest.raises((AssertionError, EyasError, pytest.fail.Exception)):
            _assert_green(module, claim, stores)


def _assert_green(module: str, claim: str, stores: Stores) -> None:
    suite = importlib.import_module(f"conformance.test_metadata_store_{module}")
    try:
        getattr(suite, claim)(stores)
    finally:
        stores.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [WithoutFencing, WithDurableFlag, WithEagerRelease, WithoutVersions], ids=lambda kind: kind.__name__
)
def test_random_jobs_find_the_worst_of_them_by_themselves(kind: type[SQLiteMetadataStore]) -> None:
    class Broken(StoreMachine):
        """The machine over the broken store."""

        def open_subject(self, path: Path, wanted: object) -> SQLiteMetadataStore:
            return kind(path, wanted)  # type: ignore[arg-type]

    limits = settings(
        max_examples=2000,
        stateful_step_count=40,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises((AssertionError, EyasError)):
        run_state_machine_as_test(Broken, settings=limits)
