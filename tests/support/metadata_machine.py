"""A state machine that plays a whole job against two metadata stores at once and compares them call by call.

Besides the comparison it keeps its own ledger, a dict of steps, and asks after every call for the promises by number.
Suites choose the two stores; a mutant in the place of one must be caught by the comparison or by a promise.
"""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eyas_contract import wire
from eyas_contract.errors import EyasError
from eyas_contract.ids import Incarnation
from eyas_contract.states import Phase
from eyas_runtime.metadata.fake import InMemoryMetadataStore
from eyas_runtime.metadata.port import JobFacts, MetadataStore
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from support.jobs import NOW, Actor, facts, fingerprint, holder, prepared

MEMORY_BACKED = Path("/dev/shm")
Outcome = tuple[str, Any]


def scratch_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder that is fast to sync where the machine has one: these suites look for wrong rows, not for lost ones."""
    return tempfile.TemporaryDirectory(dir=MEMORY_BACKED if MEMORY_BACKED.is_dir() else None)


class StoreMachine(RuleBasedStateMachine):
    """See the module docstring. Subclasses may replace `open_subject`."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = scratch_folder()
        self.files = 0
        self.leases: list[tuple[wire.CaptureLease, wire.Holder]] = []
        self.newest = {0: holder(0), 1: holder(1)}
        self.zombies: list[tuple[Incarnation, int]] = []
        self.pending: list[tuple[wire.Order, wire.CheckpointCommitRequest]] = []
        self.line: list[tuple[wire.PresentedCheckpoint, dict[int, frozenset[int]]]] = []
        self.ledger: dict[int, frozenset[int]] = {}
        self.handed: dict[int, frozenset[int]] = {}
        self.verdicts: dict[int, tuple[wire.Verdict, ...]] = {}
        self.committed: set[str] = set()
        self.acked = 0

    # --- the two stores ------------------------------------------------------------------------------------------

    def open_subject(self, path: Path, wanted: JobFacts) -> MetadataStore:
        """The store under test."""
        return SQLiteMetadataStore(path, wanted)

    def fresh(self, wanted: JobFacts) -> list[MetadataStore]:
        self.files += 1
        self.path = Path(self.folder.name) / f"{self.files}.sqlite"
        return [self.open_subject(self.path, wanted), InMemoryMetadataStore(wanted)]

    @initialize(
        window=st.integers(1, 4),
        group=st.integers(1, 3),
        epochs=st.integers(1, 2),
        count=st.integers(2, 7),
        retain=st.booleans(),
        cut=st.booleans(),
        every=st.integers(0, 2),
        held_out=st.integers(1, 5),
    )
    def begin(
        self, window: int, group: int, epochs: int, count: int, retain: bool, cut: bool, every: int, held_out: int
    ) -> None:
        every *= group  # Rounds begin where capture groups do.
        self.facts = facts(
            window_size=window,
            group_size=group,
            epochs=epochs,
            retain_objects=retain,
            max_steps=2 if cut else None,
            allow_restart_from_zero=False,
            evaluate_every=every,
        )
        held_out = held_out if every else 0
        empty = ((1,) if count > 4 else ()) + ((count,) if held_out > 2 else ())
        self.inputs = prepared(count, empty=empty, held_out=held_out)
        self.actors = [Actor(store) for store in self.fresh(self.facts)]
        self.both(lambda actor: actor.store.commit_prepared(self.inputs, now=NOW))
        for who in self.newest.values():
            self.both(lambda actor, who=who: actor.register(who))

    def both(self, call: Callable[[Actor], Any]) -> Outcome:
        """The outcome of a call, the same from both stores."""
        outcomes = [_outcome(call, actor) for actor in self.actors]
        assert outcomes[0] == outcomes[1], f"{outcomes[0]} from the subject, {outcomes[1]} from the plain one"
        return outcomes[0]

    @property
    def store(self) -> MetadataStore:
        return self.actors[0].store

    # --- producers -----------------------------------------------------------------------------------------------

    @rule(index=st.integers(0, 1))
    def lease(self, index: int) -> None:
        who = self.newest[index]
        if self.both(lambda actor: actor.store.groups_in_need(limit=1))[1]:
            kind, lease = self.both(lambda actor: actor.lease(who))
            assert kind == "ok"
            self.leases.append((lease, who))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), payload=st.sampled_from("pppq"), part=st.booleans())
    def commit(self, data: st.DataObject, payload: str, part: bool) -> None:
        lease, who = data.draw(st.sampled_from(self.leases))
        refs = self.actors[0].refs_of(lease, payload=payload)[: 1 if part else None]
        live = lease.lease_id in {each.lease_id for each in self.store.live_leases()}
        kind, accepted = self.both(
            lambda actor: actor.store.commit_samples(who, lease.lease_id, lease.token, refs, now=NOW)
        )
        if kind == "ok":
            assert live or set(accepted) <= {int(each[2:]) for each in self.committed}, "a dead lease committed"
            self.committed |= {f"s-{sequence:012d}" for sequence in accepted}

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), reason=st.sampled_from(["expired", "returned", "deadline"]))
    def end_lease(self, data: st.DataObject, reason: str) -> None:
        lease, _ = data.draw(st.sampled_from(self.leases))
        self.both(lambda actor: actor.store.end_leases([lease.lease_id], reason=reason, now=NOW))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), poison=st.sampled_from([True, False, False]))
    def fail(self, data: st.DataObject, poison: bool) -> None:
        lease, who = data.draw(st.sampled_from(self.leases))
        sequence = next(task.sequence for task in lease.tasks if task.capture)
        failures = [wire.CaptureFailure(sequence=sequence, reason="bad", poison=poison)]
        self.both(lambda actor: actor.store.fail_capture(who, lease.lease_id, lease.token, failures, now=NOW))

    @rule(index=st.integers(0, 1), older=st.booleans())
    def replace_producer(self, index: int, older: bool) -> None:
        now = self.newest[index]
        who = holder(index, now.ordinal - older, now.restart + 1)
        kind, _ = self.both(lambda actor: actor.store.register(who, fingerprint("cpu-a"), now=NOW))
        assert (kind == "Fenced") is older
        if not older:
            self.newest[index] = who

    # --- the pool ------------------------------------------------------------------------------------------------

    @rule()
    def release(self) -> None:
        self.both(lambda actor: actor.sweep_garbage())

    @rule(data=st.data())
    def lose_objects(self, data: st.DataObject) -> None:
        there = self.store.resident(after=None, limit=3)
        if there:
            key = data.draw(st.sampled_from(there)).key
            self.both(lambda actor: actor.store.mark_missing([key], reason="not listed", now=NOW))

    @rule(above=st.integers(0, 10), nbytes=st.integers(1, 3000))
    def evict(self, above: int, nbytes: int) -> None:
        self.both(lambda actor: actor.store.evictable_bytes(above))
        self.both(lambda actor: actor.store.evict(nbytes=nbytes, above_sequence=above, now=NOW))

    # --- ranks ---------------------------------------------------------------------------------------------------

    @rule(higher=st.booleans(), back=st.integers(0, 1))
    def start(self, higher: bool, back: int) -> None:
        """The ranks start: from the newest commit, or from the one before because the newest fails verification."""
        gang = self.store.gang()
        if gang.incarnation is not None:
            self.zombies.append((gang.incarnation, gang.attempt))
        attempt = max(gang.attempt + higher, 1)
        keep = self.line[: len(self.line) - back] if len(self.line) > back else self.line
        refused = tuple(shown.directory for shown, _ in self.line[len(keep) :])
        shown = keep[-1][0] if keep else None
        for actor in self.actors:
            actor.attempt = attempt
        kind, reply = self.both(lambda actor: actor.reconcile(shown, refused=refused))
        assert kind == "ok", reply
        self.line = list(keep)
        self.ledger = dict(keep[-1][1]) if keep else {}
        self.acked = reply.checkpoint_step
        self.pending, self.handed, self.verdicts = [], {}, {}

    @rule()
    def lose_the_volume(self) -> None:
        """The database is gone; a new one of the next epoch starts with nothing."""
        gang = self.store.gang()
        wanted = msgspec.structs.replace(self.facts, store_epoch=self.facts.store_epoch + 1)
        self.facts = wanted
        for store, actor in zip(self.fresh(wanted), self.actors, strict=True):
            actor.store.close()
            actor.store = store
        self.zombies, self.leases, self.committed = [], [], set()
        self.both(lambda actor: actor.store.commit_prepared(self.inputs, now=NOW))
        for who in self.newest.values():
            self.both(lambda actor, who=who: actor.register(who))
        for actor in self.actors:
            actor.attempt = gang.attempt + 1
        shown = self.line[-1][0] if self.line else None
        kind, reply = self.both(lambda actor: actor.reconcile(shown))
        assert kind == "ok", reply
        self.ledger = dict(self.line[-1][1]) if self.line else {}
        self.acked = reply.checkpoint_step
        self.pending, self.handed, self.verdicts = [], {}, {}

    @rule(groups=st.integers(1, 6))
    def capture_some(self, groups: int) -> None:
        """A producer that works for a while: without it, random jobs would hardly ever train."""
        who = self.newest[0]
        for _ in range(groups):
            needs = self.both(lambda actor: actor.store.groups_in_need(limit=1))[1]
            if not needs:
                return
            lease = self.both(lambda actor, group=needs[0].group: actor.lease(who, group=group))[1]
            kind, accepted = self.both(lambda actor, lease=lease: actor.commit(lease, who))
            assert kind == "ok"
            self.committed |= {f"s-{sequence:012d}" for sequence in accepted}

    @rule(steps=st.integers(1, 3), commit=st.booleans())
    def work(self, steps: int, commit: bool) -> None:
        """Ranks that work for a while."""
        if not self.store.gang().open:
            self.start(higher=False, back=0)
        for _ in range(steps):
            self.train()
            self.ack(bad=False)
        if commit:
            self.order_checkpoint(last=False)
            if self.pending:
                self._commit(*self.pending[-1], keep=2)

    @precondition(lambda self: any(self.handed.values()))
    @rule(data=st.data())
    def poison_after_the_seal(self, data: st.DataObject) -> None:
        """A sample of a handed window is lost, and its second capture finds that it is poison."""
        steps = [step for step, live in self.handed.items() if live and step > self.store.gang().durable_step]
        if not steps:
            return
        held = [each.lease_id for each in self.store.live_leases()]
        self.both(lambda actor: actor.store.end_leases(held, reason="returned", now=NOW))
        self.capture_some(groups=20)
        order = self.actors[0].orders[data.draw(st.sampled_from(steps))]
        ref = next(entry.ref for entry in order.entries if entry.ref is not None)
        self.both(lambda actor: actor.lose((ref.sequence, ref.generation)))
        needs = self.both(lambda actor: actor.store.groups_in_need(limit=1))[1]
        if not needs or needs[0].first_sequence != ref.sequence:
            return
        who = self.newest[0]
        lease = self.both(lambda actor: actor.lease(who, group=needs[0].group))[1]
        failures = [wire.CaptureFailure(sequence=ref.sequence, reason="bad", poison=True)]
        self.both(lambda actor: actor.store.fail_capture(who, lease.lease_id, lease.token, failures, now=NOW))

    @rule()
    def train(self) -> None:
        if not self.store.gang().open:
            return
        actor = self.actors[0]
        kind, order = self.both(lambda actor: actor.train(ack=False))
        if kind == "ok":
            self.handed[order.step] = frozenset(entry.sequence for entry in order.entries if entry.ref is not None)
            assert self.both(lambda actor: actor.store.order(actor.incarnation, actor.ordinal - 1)) == ("ok", order)
            assert order.step == actor.step

    @rule(bad=st.booleans())
    def ack(self, bad: bool) -> None:
        step = self.acked + 1
        if step not in self.handed:
            return
        told = tuple(
            wire.Verdict(sequence=sequence, step=step, reason="nan") for sequence in sorted(self.handed[step])[:bad]
        )
        kind, _ = self.both(lambda actor: actor.ack(step, verdicts=told))
        if kind == "ok":
            self.acked = step
            self.verdicts[step] = told

    @rule()
    def repeat_ack(self) -> None:
        if self.acked in self.handed:
            self.both(lambda actor: actor.ack(self.acked, verdicts=self.verdicts.get(self.acked, ())))

    @rule(data=st.data(), fresh=st.booleans())
    def report_lost(self, data: st.DataObject, fresh: bool) -> None:
        orders = self.actors[0].orders
        if not orders:
            return
        order = orders[data.draw(st.sampled_from(sorted(orders)))]
        refs = [entry.ref for entry in order.entries if entry.ref is not None]
        if refs:
            ref = data.draw(st.sampled_from(refs))
            self.both(lambda actor: actor.lose((ref.sequence, ref.generation - (not fresh))))

    @rule(last=st.sampled_from([False, False, True]))
    def order_checkpoint(self, last: bool) -> None:
        kind, order = self.both(lambda actor: actor.order_checkpoint(last=last))
        if kind == "ok":
            told = tuple(v for step in sorted(self.verdicts) if step <= order.step for v in self.verdicts[step])
            durable = self.store.gang().durable_step
            told = tuple(verdict for verdict in told if verdict.step > durable)
            best = self._best(order)
            self.pending.append((order, self.actors[0].commit_request(order, verdicts=told, best=best)))

    def _best(self, order: wire.Order) -> wire.Best | None:
        """What the ranks would say: an even window that evaluates is better than all before it."""
        rounds = self.facts.schedule(self.inputs).rounds
        if rounds.part(order.step) is not None and order.step % 2 == 0:
            return self.actors[0].best_at(order, 1.0 / order.step)
        known = self.line[-1][0].evaluation if self.line else None
        return None if known is None else known.best

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), keep=st.integers(1, 2), twice=st.booleans())
    def commit_checkpoint(self, data: st.DataObject, keep: int, twice: bool) -> None:
        order, request = data.draw(st.sampled_from(self.pending))
        kind, call = self._commit(order, request, keep=keep)
        if twice:
            assert self.both(call)[0] == kind

    def _commit(
        self, order: wire.Order, request: wire.CheckpointCommitRequest, *, keep: int
    ) -> tuple[str, Callable[[Actor], Any]]:
        shown = self.actors[0].present(order, request)
        again = any(request.manifest_digest == each.manifest_digest for each, _ in self.line)

        def call(actor: Actor) -> object:
            return actor.store.commit_checkpoint(request, shown.receipt, keep=keep, now=NOW)

        kind, garbage = self.both(call)
        if kind == "ok" and not again:
            dead = {verdict.sequence for verdict in request.verdicts}
            self.ledger |= {s: live - dead for s, live in self.handed.items() if s <= order.step}
            self.acked = max(self.acked, order.step)
            # A directory named garbage is deleted: it can never be presented again.
            assert request.best is None or request.best.directory not in garbage
            self.line = [each for each in self.line if each[0].directory not in garbage]
            self.line.append((shown, dict(self.ledger)))
        return kind, call

    @rule(ordinal=st.integers(0, 6))
    def ask_again(self, ordinal: int) -> None:
        self.both(lambda actor: actor.store.order(actor.incarnation, ordinal))

    @rule(rank=st.integers(1, 1), name=st.sampled_from(["a", "b"]))
    def join(self, rank: int, name: str) -> None:
        gang = self.store.gang()
        process = f"{name}-{gang.incarnation}"
        self.both(lambda actor: actor.store.join(actor.attempt, rank, process, now=NOW))

    @rule(code=st.sampled_from([0, 1, -9, 75]), name=st.sampled_from(["a", "b"]))
    def exit(self, code: int, name: str) -> None:
        process = f"{name}-{self.store.gang().incarnation}"
        self.both(
            lambda actor: actor.store.report_exit(
                wire.ExitRequest(attempt=actor.attempt, rank=1, process=process, code=code), now=NOW
            )
        )
        self.both(lambda actor: actor.store.closed_processes(actor.attempt, [process]))

    @rule()
    def zombie_is_powerless(self) -> None:
        """Promise 6: whatever an older incarnation asks raises, and nothing moves."""
        if not self.zombies:
            return
        incarnation, _ = self.zombies[-1]
        if incarnation == self.store.gang().incarnation:
            return
        before = self.store.status(), self.store.audit()
        order = self.actors[0].orders.get(self.acked) or wire.Order(ordinal=0, kind="train", step=1, version=1)
        ack = wire.AckRequest(incarnation=incarnation, step=order.step, version=order.version, verdicts=(), metrics={})
        calls: list[Callable[[Actor], Any]] = [
            lambda actor: actor.store.record_train_ack(ack, now=NOW),
            lambda actor: actor.store.order(incarnation, 0),
            lambda actor: actor.store.give_train_order(incarnation, 0, 1, now=NOW),
            lambda actor: actor.store.report_lost(incarnation, [], now=NOW),
        ]
        for call in calls:
            assert self.both(call)[0] in {"Fenced", "Closed"}
        assert (self.store.status(), self.store.audit()) == before

    @rule()
    def reopen(self) -> None:
        """The service restarts: the subject's file is closed and opened again."""
        subject = self.actors[0].store
        if isinstance(subject, SQLiteMetadataStore):
            subject.close()
            self.actors[0].store = self.open_subject(self.path, self.facts)

    # --- promises ------------------------------------------------------------------------------------------------

    @invariant()
    def both_say_the_same(self) -> None:
        for read in (
            lambda actor: actor.store.status(),
            lambda actor: actor.store.usage(),
            lambda actor: actor.store.gang(),
            lambda actor: actor.store.audit(),
            lambda actor: actor.store.groups_in_need(limit=2),
            lambda actor: actor.store.live_leases(),
            lambda actor: actor.store.known_checkpoints(),
            lambda actor: actor.store.releasable(limit=50),
            lambda actor: actor.store.resident(after=None, limit=50),
            lambda actor: list(actor.store.all_committed_ids()),
            lambda actor: actor.store.suspects(limit=9),
            lambda actor: actor.store.metrics(0, 99),
        ):
            self.both(read)

    @invariant()
    def promise_1_no_lost_ref(self) -> None:
        assert self.committed <= set(self.store.all_committed_ids())

    @invariant()
    def promise_3_once_in_the_weights(self) -> None:
        audit = self.store.audit()
        assert audit.trained_twice == 0
        assert audit.missing == 0
        assert audit.trained_once + audit.evaluated_once == sum(len(live) for live in self.ledger.values())

    @invariant()
    def promise_5_release_implies_durable(self) -> None:
        store, end = self.store, self.store.durable_marker()[1]
        going = {each.key for each in store.releasable(limit=1000)}
        gang = store.gang()
        if gang.open and gang.incarnation is not None:
            for step, order in self.actors[0].orders.items():
                live = [entry.sequence for entry in order.entries if entry.ref is not None]
                with contextlib.suppress(EyasError):
                    reply = store.current_refs(gang.incarnation, step, order.version, live)
                    held = {ref.key for ref in reply.refs if ref.sequence >= end}
                    assert not held & going, "an object of a window that is not durable may be deleted"

    @invariant()
    def promise_7_bounded(self) -> None:
        usage = self.store.usage()
        assert usage.resident_bytes >= usage.garbage_bytes + usage.kept_bytes
        assert usage.reserved_bytes == 0 or usage.live_leases > 0

    def teardown(self) -> None:
        """Promise 8: when faults stop, the job completes; and promise 7 at the end."""
        if not hasattr(self, "actors"):
            return
        self.both(
            lambda actor: actor.store.end_leases(
                [each.lease_id for each in actor.store.live_leases()], reason="returned", now=NOW
            )
        )
        self.start(higher=True, back=0)
        self.finish()
        self.both_say_the_same()
        self.promise_3_once_in_the_weights()
        status, audit = self.store.status(), self.store.audit()
        assert status.phase == Phase.COMPLETE
        assert audit.trained_once + audit.evaluated_once + audit.dead_lettered == status.total_samples
        assert (audit.resident_objects, audit.live_leases) == (0, 0)
        for actor in self.actors:
            actor.store.close()
        self.folder.cleanup()

    def finish(self) -> None:
        who = self.newest[0]
        total = self.store.status().total_steps
        while self.actors[0].step < total:
            while needs := self.both(lambda actor: actor.store.groups_in_need(limit=1))[1]:
                lease = self.both(lambda actor, group=needs[0].group: actor.lease(who, group=group))[1]
                self.both(lambda actor, lease=lease: actor.commit(lease, who))
            kind, order = self.both(lambda actor: actor.train())
            assert kind == "ok", order
            self.handed[order.step] = frozenset(entry.sequence for entry in order.entries if entry.ref is not None)
        if self.store.gang().durable_step < total:
            kind, shown = self.both(lambda actor: actor.checkpoint(last=True))
            assert kind == "ok", shown
            self.ledger |= self.handed
        self.both(lambda actor: actor.sweep_garbage())


def _outcome(call: Callable[[Actor], Any], actor: Actor) -> Outcome:
    try:
        return "ok", call(actor)
    except EyasError as error:
        return type(error).__name__, None
