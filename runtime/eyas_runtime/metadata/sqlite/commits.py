"""Theme "commits" of the SQLite store: refs become ready samples, poison becomes dead letters."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Conflict, Fenced, UserError
from eyas_contract.ids import LeaseToken, sample_id
from eyas_contract.refs import SCHEMA_VERSION, SampleRef
from eyas_contract.states import Sample, SampleEvent
from eyas_runtime.metadata.sqlite.capture import Capture


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lease:
    """A lease whose token was shown."""

    number: int
    group: int
    ended_because: str | None
    keys: dict[int, tuple[int, str, str | None]]
    """Sequence number -> generation, key, digest once committed."""


class Commits(Capture):
    """What producers report about the members of a lease."""

    def commit_samples(
        self, holder: wire.Holder, lease_id: str, token: LeaseToken, refs: Sequence[SampleRef], *, now: float
    ) -> tuple[int, ...]:
        fingerprint = self._assert_newest(holder)
        lease = self._shown(holder, lease_id, token)
        for ref in refs:
            self._assert_ref(lease, ref)
        repeated = [ref.sequence for ref in refs if lease.keys[ref.sequence][2] == ref.digest]
        if lease.ended_because is not None:
            if lease.ended_because != "committed" and len(repeated) < len(refs):
                raise Conflict(f"lease {lease_id} is over ({lease.ended_because}): what it wrote is nobody's")
            return tuple(sorted(repeated))
        fresh = [ref for ref in refs if ref.sequence not in repeated]
        for ref in fresh:
            if lease.keys[ref.sequence][2] is not None:
                raise UserError(f"{ref.sample_id}: another digest was committed under key {ref.key}")
        with self._db.transaction():
            accepted = [ref.sequence for ref in fresh if self._accept(ref, ref.fingerprint or fingerprint)]
            self._db.run("clear_trouble", group=lease.group)
            if not self._tally_of(Sample.LOST):
                self._db.run("recover_losses", now=now)
            if accepted:
                self._db.run("recover_children", now=now)
            end = self._schedule.end_of(self._progress().durable_step)
            if not self._db.integer("lease_keys_open", lease=lease.number, durable_end=end):
                self._db.run("end_lease", lease_id=lease_id, reason="committed")
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
        for failure in failures:
            if failure.sequence not in lease.keys:
                raise UserError(f"sequence number {failure.sequence} is not to be captured by lease {lease_id}")
        if lease.ended_because == "failed":
            return False
        if lease.ended_because is not None:
            raise Conflict(f"lease {lease_id} is over ({lease.ended_because})")
        needed = set(self._members_in_need(lease.group))
        poison = [failure for failure in failures if failure.poison and failure.sequence in needed]
        with self._db.transaction():
            self._db.run("end_lease", lease_id=lease_id, reason="failed")
            self._choose((failure.sequence, failure.reason or "poison", "producer") for failure in poison)
            self._kill_chosen(durable_end=self._schedule.end_of(self._progress().durable_step))
            return self._change_windows(poison, now=now)

    # --- helpers -------------------------------------------------------------------------------------------------

    def _shown(self, holder: wire.Holder, lease_id: str, token: LeaseToken) -> _Lease:
        row = self._db.one("lease", lease_id=lease_id)
        if row is None:
            raise Conflict(f"lease {lease_id[:64]} is not known here")
        number, stored_token, group, index, ordinal, restart, _, because = row
        if stored_token != token or (index, ordinal, restart) != (holder.index, holder.ordinal, holder.restart):
            raise Fenced(f"lease {lease_id[:64]} is not this holder's")
        keys = {
            sequence: (generation, key, None if digest is None else digest)
            for sequence, generation, key, digest in self._db.all("lease_keys", lease=number)
        }
        return _Lease(
            number=number,
            group=group,
            ended_because=None if because is None else because,
            keys=keys,
        )

    def _assert_ref(self, lease: _Lease, ref: SampleRef) -> None:
        minted = lease.keys.get(ref.sequence)
        if minted is None or (ref.generation, ref.key) != minted[:2]:
            raise UserError(f"{ref.sample_id[:80]}: key and generation are not those that its lease minted")
        if ref.sample_id != sample_id(ref.sequence):
            raise UserError(f"{ref.sample_id[:80]} is not the name of sequence number {ref.sequence}")
        if ref.schema_version != SCHEMA_VERSION:
            raise UserError(f"{ref.sample_id}: schema {ref.schema_version}, but this service reads {SCHEMA_VERSION}")
        if ref.length < 1 or not ref.digest or not ref.payload_digest:
            raise UserError(f"{ref.sample_id}: a ref needs a length and both digests")
        prompt = self._schedule.prompt_of(ref.sequence)
        if self._prompts is not None and ref.num_tokens != self._prompts.tokens[prompt]:
            raise UserError(
                f"{ref.sample_id}: {ref.num_tokens} tokens captured, but prepare found {self._prompts.tokens[prompt]} "
                f"in prompt {prompt}: data, tokenizer or template changed while the job ran"
            )

    def _accept(self, ref: SampleRef, fingerprint: str) -> bool:
        """Make the sample ready. False when it is not in need any more: its object is swept later."""
        if ref.sequence not in self._members_in_need(self._schedule.group_of(ref.sequence)):
            return False
        before = self._db.all("members", low=ref.sequence, high=ref.sequence + 1)[0]
        state, old_payload, old_number = Sample(before[1]), before[2], before[3]
        progress = self._progress()
        self._write_object(ref)
        self._move(
            SampleEvent.COMMIT,
            state,
            "make_ready",
            sequence=ref.sequence,
            generation=ref.generation,
            payload_digest=ref.payload_digest,
            commit_number=progress.commits + 1,
        )
        self._db.run("note_committed_key", generation=ref.generation, digest=ref.digest)
        drift = old_payload is not None and old_payload != ref.payload_digest
        self._db.run("add_commits", commits=1, recaptured=int(old_number is not None), drift=int(drift))
        if drift and not progress.capture_drift:
            self._inexact(f"captureDrift: a second capture of {ref.sample_id} gave other bytes")
        if fingerprint and progress.capture_fingerprint and fingerprint != progress.capture_fingerprint:
            self._inexact(f"captureFingerprint: captured on {fingerprint}, first on {progress.capture_fingerprint}")
        elif fingerprint:
            self._db.run("set_capture_fingerprint", fingerprint=fingerprint)
        return True

    def _write_object(self, ref: SampleRef) -> None:
        retained = self._facts.retain_objects
        prompt = self._schedule.prompt_of(ref.sequence) if retained else None
        last_use = ref.sequence if prompt is None else self._schedule.sequences_of(prompt)[-1]
        self._db.run(
            "add_object",
            generation=ref.generation,
            key=ref.key,
            prompt=prompt,
            last_use=last_use,
            length=ref.length,
            digest=ref.digest,
            payload_digest=ref.payload_digest,
            num_tokens=ref.num_tokens,
            num_supervised=ref.num_supervised,
            feature_specs=msgspec.json.encode(ref.feature_specs).decode(),
            strategy=ref.strategy,
            schema_version=ref.schema_version,
            fingerprint=ref.fingerprint,
        )

    def _tally_of(self, state: Sample) -> int:
        return next(int(count) for name, count in self._db.all("tally") if name == state)

    def _change_windows(self, poison: Sequence[wire.CaptureFailure], *, now: float) -> bool:
        """New versions of sealed windows that got a hole; closes an incarnation that was handed an old one."""
        gang, handed = self._newest_gang(), False
        for step in sorted({self._schedule.step_of(failure.sequence) for failure in poison}):
            if not self._db.run("new_version", step=step):
                continue
            # Sealed means that this sample was captured once: the run that nobody touched trains it.
            self._inexact(f"poison: a sample of window {step} became a dead letter after the window was sealed")
            if gang is not None and gang.open and self._db.one("train_order_of_step", number=gang.number, step=step):
                handed = True
        if handed and gang is not None:
            message = "a sample of a window that the ranks were handed became a dead letter"
            self._close_gang(gang, klass="WindowChanged", message=message, now=now)
        return handed
