"""Theme "needs" of the SQLite store: which capture groups have members to capture.

Below the *frontier* group every sequence number has a row; beyond it, no row means pending. Groups are found by an
index below the frontier and by counting above it, so that a million pending prompts cost nothing.

With `retain_objects`, members whose prompt has an object in the pool since an earlier epoch become ready here, when
they come due, without a capture.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from eyas_contract.states import Sample, SampleEvent
from eyas_runtime.core.prompts import estimated_bytes
from eyas_runtime.metadata.port import GroupNeed
from eyas_runtime.metadata.sqlite.base import SQLiteBase

_PASS_GROUPS_MAX: Final = 1024
"""Groups at the frontier that one call may pass because nothing in them needs a capture; a limit on one transaction."""
_IN_NEED: Final = (None, Sample.PENDING.value, Sample.LOST.value)


class Needs(SQLiteBase):
    """The groups in need, and objects that serve several sequence numbers."""

    def groups_in_need(self, *, limit: int) -> Sequence[GroupNeed]:
        if self._prompts is None or self._is_blind():
            return ()
        self._pass_satisfied(limit)
        found: list[GroupNeed] = []
        for group in self._candidates():
            need = self._need_of(group)
            if need is not None:
                found.append(need)
            if len(found) == limit:
                break
        return tuple(found)

    # --- reading only --------------------------------------------------------------------------------------------

    def _is_blind(self) -> bool:
        """A fresh store of a later epoch does not know what is trained before the ranks have told it."""
        return self._facts.store_epoch > 1 and self._newest_gang() is None

    def _frontier(self) -> int:
        """First group that was never leased: all sequence numbers before it have rows."""
        progress, schedule = self._progress(), self._schedule
        return max(progress.frontier_group, schedule.group_of(schedule.end_of(progress.durable_step)))

    def _candidates(self) -> Iterator[int]:
        """Groups without a live lease that may be in need, ascending; found one by one, as the caller goes on."""
        schedule, frontier = self._schedule, self._frontier()
        end = schedule.end_of(self._progress().durable_step)
        high = schedule.group(frontier).start
        while row := self._db.one("next_in_need", low=end, high=high):
            group = schedule.group_of(row[0])
            if self._db.one("live_lease_of_group", group=group) is None:
                yield group
            end = schedule.group(group).stop
        yield from range(frontier, min(schedule.total_groups, frontier + _PASS_GROUPS_MAX))

    def _members_in_need(self, group: int) -> list[int]:
        members = self._schedule.group(group)
        end = self._schedule.end_of(self._progress().durable_step)
        states = {row[0]: row[1] for row in self._db.all("members", low=members.start, high=members.stop)}
        return [sequence for sequence in members if sequence >= end and states.get(sequence) in _IN_NEED]

    def _need_of(self, group: int) -> GroupNeed | None:
        needed = self._members_in_need(group)
        if not needed or self._prompts is None:
            return None
        trouble = self._db.one("overruns", group=group)
        return GroupNeed(
            group=group,
            first_sequence=needed[0],
            members_in_need=len(needed),
            estimated_bytes=estimated_bytes(self._schedule, self._prompts, needed),
            end_sequence=self._schedule.group(group).stop,
            overruns=0 if trouble is None else trouble[0],
        )

    # --- writing -------------------------------------------------------------------------------------------------

    def _pass_satisfied(self, limit: int) -> None:
        """Attach resident objects to the next groups, and move the frontier over groups that need nothing."""
        attaching = self._facts.retain_objects and self._has_residents()
        frontier = self._frontier()
        if not attaching and (frontier >= self._schedule.total_groups or self._members_in_need(frontier)):
            return
        with self._db.transaction():
            if attaching:
                self._attach_next(limit)
            stop = min(self._schedule.total_groups, frontier + _PASS_GROUPS_MAX)
            while frontier < stop and not self._members_in_need(frontier):
                frontier += 1
            self._db.run("set_frontier", group=frontier)

    def _has_residents(self) -> bool:
        return any(count for state, count, _ in self._db.all("object_totals") if state != "garbage")

    def _attach_next(self, limit: int) -> None:
        still_open = 0
        for group in self._candidates():
            self._attach_group(group)
            still_open += bool(self._members_in_need(group))
            if still_open == limit:
                return

    def _attach_range(self, places: range) -> None:
        """Attach whatever can be of these places, except what a live lease is capturing. Inside a transaction."""
        for group in sorted({self._schedule.group_of(sequence) for sequence in places}):
            if self._db.one("live_lease_of_group", group=group) is None:
                self._attach_group(group)

    def _attach_group(self, group: int) -> None:
        for sequence in self._members_in_need(group):
            row = self._db.one("object_of_prompt", prompt=self._schedule.prompt_of(sequence))
            if row is not None:
                self._attach(sequence, row[0], row[1])

    def _attach(self, sequence: int, generation: int, payload_digest: str) -> None:
        pending = self._db.run("add_pending_range", low=sequence, high=sequence + 1)
        self._add_to_tally(Sample.PENDING, pending)
        commits = self._progress().commits + 1
        for origin in (Sample.PENDING, Sample.LOST):
            self._move(
                SampleEvent.COMMIT,
                origin,
                "make_ready",
                sequence=sequence,
                generation=generation,
                payload_digest=payload_digest,
                commit_number=commits,
            )
        self._db.run("clear_picked")
        self._db.run("pick", generation=generation)
        self._move_picked_objects("use_picked")
        self._db.run("add_commits", commits=1, recaptured=0, drift=0)
