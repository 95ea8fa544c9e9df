"""Inputs of the in-memory store, and which capture groups have members to capture."""

from collections.abc import Sequence

from eyas_contract import wire
from eyas_contract.errors import UserError
from eyas_contract.states import SampleEvent
from eyas_runtime.core.prompts import Prompts, estimated_bytes
from eyas_runtime.metadata.fake.state import FakeBase
from eyas_runtime.metadata.port import GroupNeed


class FakeInputs(FakeBase):
    """What is trained."""

    def prepared(self) -> wire.Prepared | None:
        return self._prepared

    def commit_prepared(self, prepared: wire.Prepared, *, now: float) -> None:
        prompts = Prompts.of(prepared)
        if self._prepared is not None:
            if self._prepared != prepared:
                raise UserError("the inputs are prepared already, and with other results: restore the old files")
            return
        if self._expected_inputs not in (None, prepared.inputs):
            raise UserError("data, tokenizer, template or target changed since the newest checkpoint was made")
        if not all(0 <= prompt < prepared.prompt_count + prepared.held_out_count for prompt in prepared.empty_prompts):
            raise UserError("prepared.empty_prompts names a prompt that is not there")
        schedule = self._facts.schedule(prepared)
        if self._durable_step > schedule.total_steps:
            raise UserError(f"the checkpoint is beyond the job's {schedule.total_steps} steps: epochs or data shrank")
        self._prepared, self._prompts = prepared, prompts
        for sequence in [sequence for sequence in self._samples if sequence >= schedule.total]:
            self._forget_commit(sequence)
            del self._samples[sequence]
        dead = {sequence for prompt in prepared.empty_prompts for sequence in schedule.sequences_of(prompt)}
        for sequence in sorted(dead):
            self._kill(sequence, "no supervised token", "prepare")
            self._forget_commit(sequence)
        self._trained = [row for row in self._trained if row[1] < schedule.total and row[1] not in dead]

    def _forget_commit(self, sequence: int) -> None:
        row = self._row(sequence)
        if row.commit_number is not None:
            row.commit_number = None
            self._commits -= 1

    def total_samples(self) -> int:
        return self._schedule.total

    def estimated_bytes(self, first_sequence: int, end_sequence: int) -> int:
        if self._prompts is None:
            return 0
        places = range(max(first_sequence, 0), min(end_sequence, self._schedule.total))
        return estimated_bytes(self._schedule, self._prompts, places)


class FakeNeeds(FakeInputs):
    """Which groups to capture."""

    def groups_in_need(self, *, limit: int) -> Sequence[GroupNeed]:
        if self._prompts is None or self._is_blind():
            return ()
        leased = {row.grant.group for row in self._live()}
        found: list[GroupNeed] = []
        for group in range(self._schedule.group_of(self._durable_end), self._schedule.total_groups):
            if group in leased:
                continue
            self._attach_group(group)
            needed = self._in_need(group)
            if needed:
                found.append(
                    GroupNeed(
                        group=group,
                        first_sequence=needed[0],
                        members_in_need=len(needed),
                        estimated_bytes=estimated_bytes(self._schedule, self._prompts, needed),
                        end_sequence=self._schedule.group(group).stop,
                        overruns=self._overruns.get(group, 0),
                    )
                )
            if len(found) == limit:
                break
        return tuple(found)

    def _is_blind(self) -> bool:
        return self._facts.store_epoch > 1 and not self._gangs

    def _attach_group(self, group: int) -> None:
        """Ingested objects that are still in the pool serve later sequence numbers of their prompt."""
        if not self._facts.retain_objects:
            return
        for sequence in self._in_need(group):
            prompt = self._schedule.prompt_of(sequence)
            generations = [g for g, row in self._objects.items() if row.prompt == prompt and row.state != "garbage"]
            if generations:
                row = self._objects[max(generations)]
                self._make_ready(sequence, max(generations), row.ref.payload_digest)
                row.state = "used"
                self._commits += 1

    def _make_ready(self, sequence: int, generation: int, payload_digest: str) -> None:
        number = self._row(sequence).commit_number or self._commits + 1
        self._move(
            sequence,
            SampleEvent.COMMIT,
            object=generation,
            payload_digest=payload_digest,
            commit_number=number,
        )
