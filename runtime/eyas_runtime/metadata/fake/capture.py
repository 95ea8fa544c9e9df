"""Producers, leases and commits of the in-memory store."""

from collections.abc import Iterable, Sequence

from eyas_contract import wire
from eyas_contract.errors import Conflict, Fenced, UserError
from eyas_contract.ids import LeaseToken, object_key, sample_id
from eyas_contract.refs import SCHEMA_VERSION, SampleRef
from eyas_contract.states import Sample
from eyas_runtime.core.prompts import capture_tasks
from eyas_runtime.metadata.exits import producer_unit
from eyas_runtime.metadata.fake import incidents
from eyas_runtime.metadata.fake.needs import FakeNeeds
from eyas_runtime.metadata.fake.state import KeyRow, LeaseRow, ObjectRow
from eyas_runtime.metadata.port import LeaseGrant, LiveLease, Suspect


class FakeCapture(FakeNeeds):
    """Producers, leases, commits."""

    def register(self, holder: wire.Holder, fingerprint: wire.Fingerprint, *, now: float) -> tuple[str, ...]:
        known = self._holders.get(holder.index)
        if known is not None and _age(holder) < _age(known[0]):
            raise Fenced(f"producer {holder.index}: ordinal {holder.ordinal}.{holder.restart} was replaced")
        self._holders[holder.index] = (holder, fingerprint.digest)
        if known is not None and known[0] == holder:
            return ()
        ended = tuple(i for i, row in self._leases.items() if row.ended_because is None and _is_of(row, holder.index))
        self.end_leases(ended, reason="replaced", now=now)
        unit = producer_unit(holder.index)
        self._incidents = incidents.producer_replaced(self._incidents, unit, holder.ordinal, now)
        return ended

    def grant(self, grant: LeaseGrant, *, now: float) -> wire.CaptureLease:
        self._assert_newest(grant.holder)
        for row in self._leases.values():
            if (row.grant.holder, row.grant.request_id) == (grant.holder, grant.request_id):
                return row.lease
        if any(row.grant.group == grant.group for row in self._live()):
            raise Conflict(f"group {grant.group} is leased already")
        needed = self._in_need(grant.group)
        if not needed or self._prompts is None:
            raise Conflict(f"group {grant.group} has no member to capture")
        members = self._schedule.group(grant.group)
        if len(grant.randoms) < len(members):
            raise UserError(f"{len(grant.randoms)} random parts for {len(members)} members")
        share, rest = divmod(grant.reserved_bytes, len(needed))
        keys = {}
        for place, sequence in enumerate(needed):
            self._generation += 1
            text = grant.randoms[sequence - members.start]
            key = object_key(self._facts.job_uid, self._facts.store_epoch, self._generation, text)
            keys[sequence] = KeyRow(self._generation, key, share + (rest if place == 0 else 0))
            self._row(sequence)
        minted = {sequence: (key.key, key.generation) for sequence, key in keys.items()}
        tasks, padded_length = capture_tasks(self._schedule, self._prompts, grant.group, minted)
        lease = wire.CaptureLease(
            lease_id=grant.lease_id,
            token=grant.token,
            group=grant.group,
            tasks=tasks,
            padded_length=padded_length,
            term_seconds=grant.term_seconds,
            deadline_seconds=grant.deadline_seconds,
        )
        self._leases[grant.lease_id] = LeaseRow(grant, lease, keys)
        return lease

    def granted(self, holder: wire.Holder, request_id: str) -> wire.CaptureLease | None:
        self._assert_newest(holder)
        for row in self._live():
            if (row.grant.holder, row.grant.request_id) == (holder, request_id):
                return row.lease
        return None

    def live_leases(self) -> Sequence[LiveLease]:
        return tuple(
            LiveLease(
                lease_id=lease_id,
                holder=row.grant.holder,
                group=row.grant.group,
                term_seconds=row.grant.term_seconds,
                deadline_seconds=row.grant.deadline_seconds,
            )
            for lease_id, row in self._leases.items()
            if row.ended_because is None
        )

    def end_leases(self, lease_ids: Iterable[str], *, reason: str, now: float) -> None:
        for lease_id in lease_ids:
            row = self._leases.get(lease_id)
            if row is None or row.ended_because is not None:
                continue
            row.ended_because, group = reason, row.grant.group
            if reason in ("expired", "replaced"):
                self._deaths[group] = self._deaths.get(group, 0) + 1
            elif reason == "deadline":
                self._overruns[group] = self._overruns.get(group, 0) + 1

    def suspects(self, *, limit: int) -> Sequence[Suspect]:
        worst = sorted(self._deaths.items(), key=lambda item: (-item[1], item[0]))[:limit]
        return tuple(
            Suspect(group=group, deaths=deaths, prompts=tuple(map(self._schedule.prompt_of, self._in_need(group))))
            for group, deaths in worst
        )

    def commit_samples(
        self, holder: wire.Holder, lease_id: str, token: LeaseToken, refs: Sequence[SampleRef], *, now: float
    ) -> tuple[int, ...]:
        fingerprint = self._assert_newest(holder)
        lease = self._shown(holder, lease_id, token)
        for ref in refs:
            self._assert_ref(lease, ref)
        repeated = [ref.sequence for ref in refs if lease.keys[ref.sequence].digest == ref.digest]
        if lease.ended_because is not None:
            if lease.ended_because != "committed" and len(repeated) < len(refs):
                raise Conflict(f"lease {lease_id} is over ({lease.ended_because}): what it wrote is nobody's")
            return tuple(sorted(repeated))
        fresh = [ref for ref in refs if ref.sequence not in repeated]
        if any(lease.keys[ref.sequence].digest is not None for ref in fresh):
            raise UserError("another digest was committed under the same key")
        accepted = []
        for ref in fresh:
            if ref.sequence in self._in_need(lease.grant.group):
                self._accept(ref, ref.fingerprint or fingerprint)
                lease.keys[ref.sequence].digest = ref.digest
                accepted.append(ref.sequence)
        self._deaths.pop(lease.grant.group, None)
        self._overruns.pop(lease.grant.group, None)
        if not any(row.state == Sample.LOST for row in self._samples.values()):
            self._incidents = incidents.losses_over(self._incidents, now)
        if accepted:
            self._incidents = incidents.children_over(self._incidents, now)
        needed = self._in_need(lease.grant.group)
        if not any(key.digest is None and sequence in needed for sequence, key in lease.keys.items()):
            lease.ended_because = "committed"
        return tuple(sorted(repeated + accepted))

    def fail_capture(
        self,
        holder: wire.Holder,
        lease_id: str,
        token: LeaseToken,
        failures: Sequence[wire.CaptureFailure],
        *,
        now: float,
    ) -> bool:
        self._assert_newest(holder)
        lease = self._shown(holder, lease_id, token)
        if any(failure.sequence not in lease.keys for failure in failures):
            raise UserError(f"a failure is not about a sample of lease {lease_id}")
        if lease.ended_because == "failed":
            return False
        if lease.ended_because is not None:
            raise Conflict(f"lease {lease_id} is over ({lease.ended_because})")
        lease.ended_because = "failed"
        needed = self._in_need(lease.grant.group)
        gang, handed = self._newest_gang(), False
        changed = set()
        for failure in failures:
            if failure.poison and failure.sequence in needed:
                self._kill(failure.sequence, failure.reason or "poison", "producer")
                changed.add(self._schedule.step_of(failure.sequence))
        for step in sorted(changed & self._windows.keys()):
            self._windows[step] += 1
            self._say_inexact(f"poison: a sample of window {step} became a dead letter after the window was sealed")
            handed |= gang is not None and gang.open and gang.checkpoint_step < step <= gang.trained_step
        if handed and gang is not None:
            message = "a sample of a window that the ranks were handed became a dead letter"
            self._close_gang(gang, klass="WindowChanged", message=message, now=now)
        return handed

    # --- helpers -------------------------------------------------------------------------------------------------

    def _assert_newest(self, holder: wire.Holder) -> str:
        known = self._holders.get(holder.index)
        if known is None or _age(known[0]) < _age(holder):
            raise Conflict(f"producer {holder.index} ({holder.ordinal}.{holder.restart}) must register first")
        if known[0] != holder:
            raise Fenced(f"producer {holder.index}: ordinal {holder.ordinal}.{holder.restart} was replaced")
        return known[1]

    def _shown(self, holder: wire.Holder, lease_id: str, token: LeaseToken) -> LeaseRow:
        row = self._leases.get(lease_id)
        if row is None:
            raise Conflict(f"lease {lease_id[:64]} is not known here")
        if (row.grant.token, row.grant.holder) != (token, holder):
            raise Fenced(f"lease {lease_id[:64]} is not this holder's")
        return row

    def _assert_ref(self, lease: LeaseRow, ref: SampleRef) -> None:
        key = lease.keys.get(ref.sequence)
        if key is None or (key.generation, key.key) != (ref.generation, ref.key):
            raise UserError(f"{ref.sample_id[:80]}: key and generation are not those that its lease minted")
        if ref.sample_id != sample_id(ref.sequence) or ref.schema_version != SCHEMA_VERSION:
            raise UserError(f"{ref.sample_id[:80]}: wrong name or schema {ref.schema_version}")
        if ref.length < 1 or not ref.digest or not ref.payload_digest:
            raise UserError(f"{ref.sample_id}: a ref needs a length and both digests")
        prompt = self._schedule.prompt_of(ref.sequence)
        if self._prompts is not None and ref.num_tokens != self._prompts.tokens[prompt]:
            raise UserError(f"{ref.sample_id}: prepare found {self._prompts.tokens[prompt]} tokens in prompt {prompt}")

    def _accept(self, ref: SampleRef, fingerprint: str) -> None:
        before = self._row(ref.sequence)
        if before.payload_digest not in (None, ref.payload_digest):
            if not self._drift:
                self._say_inexact(f"captureDrift: a second capture of {ref.sample_id} gave other bytes")
            self._drift += 1
        self._recaptured += before.commit_number is not None
        prompt = self._schedule.prompt_of(ref.sequence) if self._facts.retain_objects else None
        last_use = ref.sequence if prompt is None else self._schedule.sequences_of(prompt)[-1]
        self._objects[ref.generation] = ObjectRow(ref, "used", prompt, last_use)
        self._make_ready(ref.sequence, ref.generation, ref.payload_digest)
        self._commits += 1
        first = self._capture_fingerprint = self._capture_fingerprint or fingerprint
        if fingerprint and fingerprint != first:
            self._say_inexact(f"captureFingerprint: captured on {fingerprint}, first on {first}")


def _age(holder: wire.Holder) -> tuple[int, int]:
    return holder.ordinal, holder.restart


def _is_of(row: LeaseRow, index: int) -> bool:
    return row.grant.holder.index == index
