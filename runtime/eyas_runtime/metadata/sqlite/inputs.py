"""Theme "inputs" of the SQLite store: what is trained, written once by `prepare` and compared ever after."""

from collections.abc import Iterator

import msgspec

from eyas_contract import wire
from eyas_contract.errors import UserError
from eyas_contract.states import Sample
from eyas_runtime.core.prompts import Prompts, estimated_bytes
from eyas_runtime.core.sequence import Schedule
from eyas_runtime.metadata.sqlite.ledger import Ledger


class Inputs(Ledger):
    """Prepared prompts and their sizes."""

    def prepared(self) -> wire.Prepared | None:
        return self._prepared

    def commit_prepared(self, prepared: wire.Prepared, *, now: float) -> None:
        """The first commit wins; an equal one is harmless. Raises `UserError` for another, or for inputs that are not
        those of the checkpoint that the ranks started from."""
        prompts = Prompts.of(prepared)
        if self._prepared is not None:
            if self._prepared != prepared:
                raise UserError("the inputs are prepared already, and with other results: restore the old files")
            return
        progress = self._progress()
        if progress.expected_inputs is not None:
            expected = msgspec.json.decode(progress.expected_inputs, type=wire.Inputs)
            if expected != prepared.inputs:
                raise UserError("data, tokenizer, template or target changed since the newest checkpoint was made")
        schedule = self._facts.schedule(prepared)
        if progress.durable_step > schedule.total_steps:
            raise UserError(f"the checkpoint is beyond the job's {schedule.total_steps} steps: epochs or data shrank")
        with self._db.transaction():
            self._db.run("add_prepared", body=msgspec.json.encode(prepared), now=now)
            self._cut_at(schedule.total)
            self._choose(_empty_uses(schedule, prepared))
            self._kill_chosen(durable_end=schedule.end_of(progress.durable_step))
            self._db.run("drop_trained_chosen")
            self._db.run("add_commits", commits=-self._db.run("unnumber_chosen"), recaptured=0, drift=0)
        self._prepared, self._prompts = prepared, prompts
        self._ledger_moved(clean=False)

    def total_samples(self) -> int:
        return self._schedule.total

    def estimated_bytes(self, first_sequence: int, end_sequence: int) -> int:
        if self._prompts is None:
            return 0
        schedule = self._schedule
        places = range(max(first_sequence, 0), min(end_sequence, schedule.total))
        return estimated_bytes(schedule, self._prompts, places)

    def _cut_at(self, total: int) -> None:
        """A store restored from a checkpoint of the last step could not know how short the last window is."""
        dropped = self._db.run("drop_beyond", total=total, state=Sample.RELEASED.value)
        self._add_to_tally(Sample.RELEASED, -dropped)
        self._db.run("add_commits", commits=-dropped, recaptured=0, drift=0)
        self._db.run("drop_trained_beyond", total=total)


def _empty_uses(schedule: Schedule, prepared: wire.Prepared) -> Iterator[tuple[int, str, str]]:
    for prompt in prepared.empty_prompts:
        if not 0 <= prompt < prepared.prompt_count + prepared.held_out_count:
            raise UserError(
                f"prepared.empty_prompts names prompt {prompt} of {prepared.prompt_count + prepared.held_out_count}"
            )
        for sequence in schedule.sequences_of(prompt):
            yield sequence, "no supervised token", "prepare"
