"""`kubectl eyas events`: what was said about a job and its pods, in order of time."""

from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eyas_cli.cluster.access import Access
from eyas_cli.cluster.job import read_job
from eyas_cli.incidents import clock
from eyas_operator.backends.kubernetes.resources import EVENTS

PAGE: Final = 500
PAGES_MAX: Final = 40
"""Looked through at most, those of everybody in the namespace; the API server keeps them for about an hour."""


class _Regarding(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""


class _Series(msgspec.Struct, frozen=True, rename="camel"):
    count: int = 1
    last_observed_time: str = ""


class EventRecord(msgspec.Struct, frozen=True, rename="camel"):
    """One event of the API `events.k8s.io/v1`, whoever wrote it and by which of the two APIs."""

    type: str = ""
    reason: str = ""
    note: str = ""
    event_time: str | None = None
    regarding: _Regarding = _Regarding()
    series: _Series | None = None
    deprecated_last_timestamp: str | None = None
    deprecated_count: int = 1

    @property
    def time(self) -> str:
        """When it happened last."""
        newest = self.series.last_observed_time if self.series is not None else ""
        return newest or self.deprecated_last_timestamp or self.event_time or ""

    @property
    def count(self) -> int:
        """How often."""
        return self.series.count if self.series is not None else max(1, self.deprecated_count)


class _Meta(msgspec.Struct, frozen=True):
    continued: str = msgspec.field(name="continue", default="")


class _Events(msgspec.Struct, frozen=True):
    metadata: _Meta
    items: tuple[EventRecord, ...] = ()


async def events_of(access: Access, name: str) -> tuple[EventRecord, ...]:
    """Events of the job itself and of everything whose name begins with its children's stem, the newest last."""
    job = await read_job(access, name)
    uid, stem = job.identity.uid, f"{job.identity.stem}-"
    mine: list[EventRecord] = []
    query = {"limit": str(PAGE)}
    for _ in range(PAGES_MAX):
        raw = await access.client.get(EVENTS.collection(access.namespace), query=query)
        page = msgspec.json.decode(raw, type=_Events)
        mine += (event for event in page.items if event.regarding.uid == uid or event.regarding.name.startswith(stem))
        if not page.metadata.continued:
            break
        query |= {"continue": page.metadata.continued}
    return tuple(sorted(mine, key=lambda event: event.time))


async def print_events(access: Access, name: str) -> None:
    """Print them; a plain line each where there is no terminal."""
    found = await events_of(access, name)
    console = Console()
    if not found:
        console.print(f"no events of {name}: the API server keeps them for about an hour")
    elif not console.is_terminal:
        for event in found:
            print(f"{event.time}  {event.type}  {event.reason}  {_what(event)}  {event.note}{_times(event)}")
    else:
        console.print(_table(found))


def _what(event: EventRecord) -> str:
    return f"{event.regarding.kind.lower()}/{event.regarding.name}"


def _times(event: EventRecord) -> str:
    return f" (x{event.count})" if event.count > 1 else ""


def _table(found: tuple[EventRecord, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("time", "reason", "object", "message"):
        table.add_column(head, overflow="fold")
    for event in found:
        style = "yellow" if event.type == "Warning" else ""
        note = Text(f"{event.note}{_times(event)}")
        table.add_row(clock(event.time), Text(event.reason, style=style), Text(_what(event)), note)
    return table
