"""Whether the watch streams still bring what happens: what was heard, compared with lists of what is. Pure.

A list and a stream are never of one moment, so a difference means nothing by itself. A change that one list shows and
that no stream has brought by the time of the next list was missed.
"""

from collections.abc import Mapping


class Hearing:
    """Versions of all objects by UID, as the streams told them. Versions are compared as numbers."""

    def __init__(self) -> None:
        self._heard: dict[str, int] = {}
        self._changed: dict[str, int] = {}
        self._gone: frozenset[str] = frozenset()

    def heard(self, uid: str, version: int) -> None:
        """A stream told of the object in this version."""
        self._heard[uid] = max(version, self._heard.get(uid, version))

    def heard_end(self, uid: str) -> None:
        """A stream told that the object is deleted."""
        self._heard.pop(uid, None)
        self._changed.pop(uid, None)

    def listed(self, versions: Mapping[str, int]) -> int:
        """All objects that there are now. Gives how many changes before the last list were never heard of."""
        missed = [uid for uid, version in self._changed.items() if self._heard.get(uid, -1) < version]
        ghosts = [uid for uid in self._gone if uid in self._heard and uid not in versions]
        for uid in ghosts:
            del self._heard[uid]
        self._changed = {uid: version for uid, version in versions.items() if self._heard.get(uid, -1) < version}
        self._gone = frozenset(uid for uid in self._heard if uid not in versions)
        return len(missed) + len(ghosts)
