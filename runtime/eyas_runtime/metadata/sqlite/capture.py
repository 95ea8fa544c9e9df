"""Theme "capture" of the SQLite store: who captures what, and what became of it.

A lease is a whole capture group with the keys it may write; groups are leased strictly by lowest sequence number. A
commit is guarded by the live lease's token and keys, so that a holder whose lease ended can write nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Conflict, Fenced, UserError
from eyas_contract.ids import ObjectKey, object_key
from eyas_contract.states import Sample
from eyas_runtime.core.prompts import capture_tasks
from eyas_runtime.metadata.exits import producer_unit
from eyas_runtime.metadata.port import LeaseGrant, LiveLease, Suspect
from eyas_runtime.metadata.sqlite.needs import Needs

ENDED_LEASES_KEPT: Final = 16
"""Of each producer index, so that a repeated request still finds its answer."""
_DEADLY: Final = frozenset({"expired", "replaced"})


class Capture(Needs):
    """Producers and their leases."""

    def register(self, holder: wire.Holder, fingerprint: wire.Fingerprint, *, now: float) -> tuple[str, ...]:
        row = self._db.one("holder", holder_index=holder.index)
        stored = None if row is None else (row[0], row[1])
        if stored is not None and (holder.ordinal, holder.restart) < stored:
            raise Fenced(f"producer {holder.index}: ordinal {holder.ordinal}.{holder.restart} was replaced")
        with self._db.transaction():
            self._db.run(
                "set_holder",
                holder_index=holder.index,
                ordinal=holder.ordinal,
                restart=holder.restart,
                fingerprint=fingerprint.digest,
            )
            if stored == (holder.ordinal, holder.restart):
                return ()
            ended = tuple(row[0] for row in self._db.all("live_leases_of", holder_index=holder.index))
            self._end(ended, reason="replaced")
            self._db.run("producer_replaced", unit=producer_unit(holder.index), serial=holder.ordinal, now=now)
        return ended

    def suspects(self, *, limit: int) -> Sequence[Suspect]:
        return tuple(
            Suspect(
                group=group,
                deaths=deaths,
                prompts=tuple(self._schedule.prompt_of(sequence) for sequence in self._members_in_need(group)),
            )
            for group, deaths in self._db.all("suspects", limit=limit)
        )

    def grant(self, grant: LeaseGrant, *, now: float) -> wire.CaptureLease:
        holder = grant.holder
        self._assert_newest(holder)
        stored = self._db.one(
            "lease_of_request",
            holder_index=holder.index,
            ordinal=holder.ordinal,
            restart=holder.restart,
            request_id=grant.request_id,
        )
        if stored is not None:
            return msgspec.json.decode(stored[0], type=wire.CaptureLease)
        if self._db.one("live_lease_of_group", group=grant.group) is not None:
            raise Conflict(f"group {grant.group} is leased already")
        members = self._schedule.group(grant.group)
        needed = self._members_in_need(grant.group)
        if not needed:
            raise Conflict(f"group {grant.group} has no member to capture")
        if len(grant.randoms) < len(members):
            raise UserError(f"{len(grant.randoms)} random parts for {len(members)} members")
        generation = self._progress().generation
        minted = {
            sequence: (
                object_key(
                    self._facts.job_uid,
                    self._facts.store_epoch,
                    generation + number,
                    grant.randoms[sequence - members.start],
                ),
                generation + number,
            )
            for number, sequence in enumerate(needed, start=1)
        }
        lease = self._lease_of(grant, minted)
        with self._db.transaction():
            self._write_lease(grant, lease, minted, now=now)
        return lease

    def granted(self, holder: wire.Holder, request_id: str) -> wire.CaptureLease | None:
        self._assert_newest(holder)
        row = self._db.one(
            "live_lease_of_request",
            holder_index=holder.index,
            ordinal=holder.ordinal,
            restart=holder.restart,
            request_id=request_id,
        )
        return None if row is None else msgspec.json.decode(row[0], type=wire.CaptureLease)

    def live_leases(self) -> Sequence[LiveLease]:
        return tuple(
            LiveLease(
                lease_id=lease_id,
                holder=wire.Holder(index=index, ordinal=ordinal, restart=restart),
                group=group,
                term_seconds=term,
                deadline_seconds=deadline,
            )
            for lease_id, index, ordinal, restart, group, term, deadline in self._db.all("live_leases")
        )

    def end_leases(self, lease_ids: Iterable[str], *, reason: str, now: float) -> None:
        with self._db.transaction():
            self._end(lease_ids, reason=reason)

    # --- inside a transaction, or reading only -------------------------------------------------------------------

    def _assert_newest(self, holder: wire.Holder) -> str:
        """The holder's fingerprint digest. Raises `Conflict` when it must register first, `Fenced` when replaced."""
        row = self._db.one("holder", holder_index=holder.index)
        mine = (holder.ordinal, holder.restart)
        if row is None or (row[0], row[1]) < mine:
            raise Conflict(f"producer {holder.index} ({holder.ordinal}.{holder.restart}) must register first")
        if (row[0], row[1]) > mine:
            raise Fenced(f"producer {holder.index}: ordinal {holder.ordinal}.{holder.restart} was replaced")
        return str(row[2])

    def _end(self, lease_ids: Iterable[str], *, reason: str) -> None:
        for lease_id in lease_ids:
            if self._db.run("end_lease", lease_id=lease_id, reason=reason[:100]):
                if reason in _DEADLY:
                    self._db.run("note_death", lease_id=lease_id)
                elif reason == "deadline":
                    self._db.run("note_overrun", lease_id=lease_id)

    def _lease_of(self, grant: LeaseGrant, minted: dict[int, tuple[ObjectKey, int]]) -> wire.CaptureLease:
        if self._prompts is None:
            raise Conflict("nothing can be leased before the inputs are prepared")
        tasks, padded_length = capture_tasks(self._schedule, self._prompts, grant.group, minted)
        return wire.CaptureLease(
            lease_id=grant.lease_id,
            token=grant.token,
            group=grant.group,
            tasks=tasks,
            padded_length=padded_length,
            term_seconds=grant.term_seconds,
            deadline_seconds=grant.deadline_seconds,
        )

    def _write_lease(
        self, grant: LeaseGrant, lease: wire.CaptureLease, minted: dict[int, tuple[ObjectKey, int]], *, now: float
    ) -> None:
        schedule, holder = self._schedule, grant.holder
        low, high = schedule.group(self._frontier()).start, schedule.group(grant.group).stop
        self._add_to_tally(Sample.PENDING, self._db.run("add_pending_range", low=low, high=high))
        self._db.run("set_frontier", group=grant.group + 1)
        self._db.run("set_generation", generation=max(generation for _, generation in minted.values()))
        self._db.run(
            "add_lease",
            lease_id=grant.lease_id,
            token=grant.token,
            group=grant.group,
            holder_index=holder.index,
            ordinal=holder.ordinal,
            restart=holder.restart,
            request_id=grant.request_id,
            term_seconds=grant.term_seconds,
            deadline_seconds=grant.deadline_seconds,
            now=now,
            body=msgspec.json.encode(lease).decode(),
        )
        share, rest = divmod(grant.reserved_bytes, len(minted))
        for place, (sequence, (key, generation)) in enumerate(minted.items()):
            self._db.run(
                "add_lease_key",
                lease_id=grant.lease_id,
                generation=generation,
                sequence=sequence,
                key=key,
                reserved_bytes=share + (rest if place == 0 else 0),
            )
        self._db.run("prune_leases", holder_index=holder.index, keep=ENDED_LEASES_KEPT)
