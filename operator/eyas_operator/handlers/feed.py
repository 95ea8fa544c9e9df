"""What a watch event means to us: the cache learns of it and the job's key is woken. No kopf in here.

An event is a hint: it may be lost, come twice, or be old. Whatever it says is looked at again by a pass, so the worst
that a forged or wrong one can do is one pass too many.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from eyas_operator import names
from eyas_operator.handlers.hearing import Hearing
from eyas_operator.queue.workers import JobKey


class Sink(Protocol):
    """A cache, as far as events are concerned."""

    def observe(self, event_type: Any, raw: dict[str, Any]) -> None:  # noqa: ANN401 - the cache names the types
        """One watch event: None (listed), ADDED, MODIFIED or DELETED, and the object as it is or was."""
        ...


class Feed:
    """Takes every event of every stream. Never blocks."""

    def __init__(
        self, jobs: Sink, children: Sink, wake: Callable[[JobKey], None], heard: Callable[[str], None]
    ) -> None:
        """`heard` is told the kind of every object that a stream brought."""
        self._jobs = jobs
        self._children = children
        self._wake = wake
        self._heard = heard
        self.hearing = Hearing()

    def job(self, event_type: str | None, raw: dict[str, Any]) -> None:
        """A DisaggTrainingJob was listed, changed or deleted."""
        self._note(event_type, raw)
        self._jobs.observe(event_type, raw)
        self._wake(JobKey(raw["metadata"]["namespace"], raw["metadata"]["name"]))

    def child(self, event_type: str | None, raw: dict[str, Any]) -> None:
        """An object with a job's UID label was listed, changed or deleted."""
        self._note(event_type, raw)
        self._children.observe(event_type, raw)
        key = job_of(raw)
        if key is not None:
            self._wake(key)

    def _note(self, event_type: str | None, raw: dict[str, Any]) -> None:
        self._heard(str(raw.get("kind", "")))
        meta = raw["metadata"]
        if event_type == "DELETED":
            self.hearing.heard_end(meta["uid"])
        else:
            self.hearing.heard(meta["uid"], version_of(meta.get("resourceVersion", "")))


def version_of(text: str) -> int:
    """A resource version as a number; -1 for one that is none, of which nothing can be said."""
    return int(text) if text.isascii() and text.isdigit() else -1


def job_of(raw: Mapping[str, Any]) -> JobKey | None:
    """Which job a child belongs to, by its owner or else by its label; None for neither."""
    meta = raw.get("metadata", {})
    owners = (it for it in meta.get("ownerReferences") or () if it.get("kind") == names.KIND)
    # Claims that outlive their job have no owner, and a label is cut at 63 characters: names that long are refused.
    name = next((it.get("name") for it in owners), None) or (meta.get("labels") or {}).get(names.LABEL_JOB_NAME)
    return JobKey(str(meta.get("namespace", "")), str(name)) if name else None
