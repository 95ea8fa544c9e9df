"""What the API server's own records say: how often the operator asked, and how soon it answered a death."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

Record = dict[str, Any]
_REPLACED: Final = ("pods", "create")
_READS: Final = frozenset({"get", "list", "watch"})


class AuditLog:
    """Reads complete lines as they come. A stretch of time is a `mark` and what was written after it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def mark(self) -> int:
        """The present end."""
        return self._file.stat().st_size if self._file.exists() else 0

    def since(self, mark: int) -> Iterator[Record]:
        """Records after `mark`."""
        with self._file.open("rb") as file:
            file.seek(mark)
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)


def requests(records: Iterable[Record]) -> int:
    """Requests of the operator; a watch has two records and is one."""
    return len({record["auditID"] for record in records if record["user"]["username"] == "operator"})


def writes(records: Iterable[Record]) -> int:
    """Requests of the operator that were to change something, its own Lease aside."""
    return sum(
        record["user"]["username"] == "operator"
        and record["verb"] not in _READS
        and record.get("objectRef", {}).get("resource") != "leases"
        for record in records
    )


def reactions(records: Iterable[Record], victims: Iterable[str]) -> dict[str, float]:
    """Seconds from the crash of each victim to the creation of the next producer of its unit; only those answered.

    Both times are when the API server received the request: the change of the status, and the creation.
    """
    died: dict[str, float] = {}
    found: dict[str, float] = {}
    wanted = {unit_of(victim): victim for victim in victims}
    for record in records:
        where = record.get("objectRef", {})
        victim = wanted.get(unit_of(where.get("name", "")))
        if victim is None:
            continue
        at = datetime.fromisoformat(record["requestReceivedTimestamp"]).timestamp()
        if record["user"]["username"] == "player" and where["name"] == victim:
            died.setdefault(victim, at)
        elif (where.get("resource"), record["verb"]) == _REPLACED and where["name"] != victim and victim in died:
            found.setdefault(victim, at - died[victim])
    return found


def unit_of(pod: str) -> str:
    """The pod's name without its ordinal: what stays when it is replaced."""
    return pod.rpartition("-o")[0]


def quantile(values: Iterable[float], share: float) -> float | None:
    """The value that `share` of them do not exceed; None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
