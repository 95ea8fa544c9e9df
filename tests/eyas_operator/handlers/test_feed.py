"""What an event means: the cache learns of it, the right job is woken, and missed events are noticed."""

from typing import Any

from eyas_operator import names
from eyas_operator.handlers.feed import Feed, job_of
from eyas_operator.handlers.hearing import Hearing
from eyas_operator.queue.workers import JobKey


class Memory:
    """A cache that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str | None, str]] = []

    def observe(self, event_type: str | None, raw: dict[str, Any]) -> None:
        self.events.append((event_type, raw["metadata"]["name"]))


def an_object(kind: str = "Pod", *, version: str = "5", **meta: object) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "x", "namespace": "ns", "uid": "u", "resourceVersion": version} | meta}


OWNER = {"ownerReferences": [{"kind": "Node", "name": "n"}, {"kind": names.KIND, "name": "demo"}]}


def test_every_event_reaches_the_cache_and_wakes_the_job_that_it_is_about() -> None:
    jobs, children, woken, kinds = Memory(), Memory(), [], []
    feed = Feed(jobs, children, woken.append, kinds.append)
    feed.job("ADDED", an_object(names.KIND, name="demo"))
    for event_type in (None, "ADDED", "MODIFIED", "DELETED"):
        feed.child(event_type, an_object(**OWNER))
    assert jobs.events == [("ADDED", "demo")]
    assert [event for event, _ in children.events] == [None, "ADDED", "MODIFIED", "DELETED"]
    assert set(woken) == {JobKey("ns", "demo")}
    assert len(woken) == 5
    assert kinds == [names.KIND, *["Pod"] * 4]


def test_a_child_belongs_to_its_owner_or_else_to_the_job_on_its_label() -> None:
    labels = {"labels": {names.LABEL_JOB_NAME: "kept"}}
    assert job_of(an_object(**OWNER, **labels)) == JobKey("ns", "demo")
    assert job_of(an_object(**labels)) == JobKey("ns", "kept")
    assert job_of(an_object(ownerReferences=None, labels=None)) is None


def test_a_change_that_no_stream_brought_between_two_lists_was_missed() -> None:
    hearing = Hearing()
    hearing.heard("a", 1)
    assert hearing.listed({"a": 2, "b": 3}) == 0, "a stream may be late"
    hearing.heard("b", 3)
    assert hearing.listed({"a": 2, "b": 3}) == 1
    hearing.heard("a", 4)
    assert hearing.listed({"a": 4, "b": 3}) == 0


def test_a_deletion_that_no_stream_brought_between_two_lists_was_missed() -> None:
    hearing = Hearing()
    for uid in ("gone", "late", "new"):
        hearing.heard(uid, 1)
    assert hearing.listed({}) == 0
    hearing.heard_end("late")
    assert hearing.listed({"new": 1}) == 1
    assert hearing.listed({"new": 1}) == 0, "missed once is counted once"


def test_an_old_version_does_not_undo_a_newer_one() -> None:
    hearing = Hearing()
    hearing.heard("a", 9)
    hearing.heard("a", 3)
    hearing.listed({"a": 9})
    assert hearing.listed({"a": 9}) == 0


def test_a_version_that_is_no_number_loses_no_event() -> None:
    woken: list[JobKey] = []
    feed = Feed(Memory(), Memory(), woken.append, lambda _kind: None)
    feed.child("ADDED", an_object(version="opaque", **OWNER))
    assert woken == [JobKey("ns", "demo")]
    assert feed.hearing.listed({"u": -1}) == feed.hearing.listed({"u": -1}) == 0
