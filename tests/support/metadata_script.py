"""A scripted job against a metadata store that may die at any hit of a failpoint, and the promises to check afterwards.

Every step of the script looks at the store before it acts, as the service's clients do, so that the same script run
again over whatever a crash left behind goes on from there. What was promised is appended to a journal outside the
database, after the answer; the checker compares the journal with the reopened file.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Conflict, EyasError
from eyas_contract.ids import generation_of
from eyas_contract.states import Phase
from eyas_runtime.metadata.port import JobFacts, MetadataStore
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from support.jobs import NOW, Actor, facts, fingerprint, holder, prepared

COUNT = 8
VERDICT = wire.Verdict(sequence=3, step=2, reason="loss is not finite")


@dataclass
class Journal:
    """What was answered, in order: one JSON line each, in a file that is no part of the store."""

    path: Path

    def say(self, kind: str, value: object) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([kind, value]) + "\n")

    def said(self, kind: str) -> list[Any]:
        if not self.path.exists():
            return []
        return [value for name, value in map(json.loads, self.path.read_text().splitlines()) if name == kind]


def script_facts() -> JobFacts:
    """Facts of the scripted job: four windows of 2, groups of 2."""
    return facts(window_size=2, group_size=2)


def open_script_store(folder: Path) -> SQLiteMetadataStore:
    """The store of the scripted job."""
    return SQLiteMetadataStore(folder / "m.sqlite", script_facts())


def run_script(folder: Path, life: int) -> None:
    """One life of the whole job: from whatever is there to the end. `life` makes nonces that no other life used."""
    journal = Journal(folder / "journal")
    store = open_script_store(folder)
    actor = Actor(store, count=life * 100_000, world_size=1)
    store.commit_prepared(prepared(COUNT), now=NOW)
    who = holder(restart=life)
    store.register(who, fingerprint("cpu-a"), now=NOW)
    shown = _newest(journal, store)
    actor.attempt = max(1, store.gang().attempt)
    actor.reconcile(shown, process=f"process-{life}")
    journal.say("incarnation", actor.incarnation)
    for _ in _steps(actor, who, journal):
        pass
    actor.sweep_garbage()
    store.close()


def _steps(actor: Actor, who: wire.Holder, journal: Journal) -> Iterator[None]:
    store = actor.store
    lost_once = bool(journal.said("lost"))
    while store.status().phase != Phase.COMPLETE:
        if needs := store.groups_in_need(limit=1):
            lease = actor.lease(who, group=needs[0].group)
            journal.say("generation", [task.generation for task in lease.tasks if task.capture])
            journal.say("committed", list(actor.commit(lease, who)))
            yield
            continue
        order = actor.train(ack=False)
        first = order.entries[0].ref
        if order.step == 3 and not lost_once and first is not None:
            lost_once = True
            journal.say("lost", actor.lose((first.sequence, first.generation)))
        told = (VERDICT,) if order.step == VERDICT.step else ()
        actor.ack(order.step, verdicts=told)
        if order.step % 2 == 0:
            _checkpoint(actor, journal, verdicts=told)
            actor.sweep_garbage()
        yield


def _checkpoint(actor: Actor, journal: Journal, *, verdicts: tuple[wire.Verdict, ...]) -> None:
    order = actor.order_checkpoint(last=actor.step == 4)
    request = actor.commit_request(order, verdicts=verdicts)
    shown = actor.present(order, request)
    # The directory is complete on disk before its commit is asked for.
    journal.say("directory", msgspec.to_builtins(shown))
    actor.store.commit_checkpoint(request, shown.receipt, keep=1, now=NOW)
    journal.say("durable", request.step)


def _newest(journal: Journal, store: MetadataStore) -> wire.PresentedCheckpoint | None:
    """What rank 0 finds: the newest directory whose manifest digest the store knows."""
    known = {each.manifest_digest for each in store.known_checkpoints()}
    found = [msgspec.convert(each, type=wire.PresentedCheckpoint) for each in journal.said("directory")]
    believed = [each for each in found if each.manifest_digest in known]
    return max(believed, key=lambda each: each.step, default=None)


def assert_promises_kept(folder: Path) -> None:
    """Promises 1, 3, 5, 6 and 7 over the reopened file, before anything goes on."""
    journal, store = Journal(folder / "journal"), open_script_store(folder)
    committed = set(store.all_committed_ids())
    for sequences in journal.said("committed"):
        assert {f"s-{sequence:012d}" for sequence in sequences} <= committed, "promise 1: an answered commit is gone"
    durable = max(journal.said("durable"), default=0)
    step, end = store.durable_marker()
    assert step >= durable, "promise 5: an answered checkpoint commit is gone"
    audit = store.audit()
    assert (audit.trained_twice, audit.missing) == (0, 0), "promise 3"
    assert audit.trained_once + audit.dead_lettered == end, "promise 3: every sample up to the durable step"
    resident = {generation_of(each.key) for each in store.resident(after=None, limit=100)}
    garbage = {generation_of(each.key) for each in store.releasable(limit=100)}
    assert not resident & garbage
    assert store.usage().resident_objects == len(resident) + len(garbage), "promise 7"
    generations = [generation for group in journal.said("generation") for generation in group]
    assert generations == sorted(set(generations)), "a generation came back"
    for incarnation in journal.said("incarnation")[:-1]:
        _assert_powerless(store, incarnation)
    store.close()


def _assert_powerless(store: MetadataStore, incarnation: str) -> None:
    before = store.status()
    ack = wire.AckRequest(incarnation=incarnation, step=1, version=1, verdicts=(), metrics={})  # type: ignore[arg-type]
    try:
        store.record_train_ack(ack, now=NOW)
    except Conflict:
        raise AssertionError("promise 6: a stale holder was judged by the step and not by the fence") from None
    except EyasError:
        assert store.status() == before
        return
    raise AssertionError("promise 6: a stale holder acked")


def assert_finished(folder: Path) -> None:
    """The end that the run nobody touched has."""
    store = open_script_store(folder)
    status, audit = store.status(), store.audit()
    assert status.phase == Phase.COMPLETE
    assert (audit.trained_once, audit.dead_lettered) == (COUNT - 1, 1)
    assert (audit.trained_twice, audit.missing, audit.resident_objects, audit.live_leases) == (0, 0, 0, 0)
    assert [letter.sequence for letter in status.dead_letters] == [VERDICT.sequence]
    assert status.exact, status.inexact_reasons
    store.close()


def in_child(call: Callable[..., None], *arguments: object) -> int:
    """Run `call` in a forked child; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            call(*arguments)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
