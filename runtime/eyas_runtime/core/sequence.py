"""Which prompt a sequence number uses, and where windows and capture groups begin and end.

Everything is a pure function of a few numbers of the job, so that no order is ever stored: sequence number s lies in
epoch s // N at position s % N, and each epoch walks the N prompts in its own seeded permutation. The permutation is a
Feistel network over a mixed-radix domain of about N values with a keyed hash as round function: any single position is
found in constant time and memory, in both directions.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from math import isqrt
from typing import Final

from eyas_contract import wire
from eyas_contract.config import JobConfig
from eyas_runtime.core.rounds import Rounds

_ROUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class _Domain:
    """Pairs (left, right) that number at least `size` values: left < rows, right < columns."""

    rows: int
    columns: int

    @staticmethod
    def of(size: int) -> "_Domain":
        rows = isqrt(size - 1) + 1
        return _Domain(rows, -(-size // rows))


def _round(key: bytes, number: int, value: int) -> int:
    digest = blake2b(value.to_bytes(8, "little") + bytes((number,)), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "little")


@lru_cache(maxsize=64)
def _epoch_key(seed: int, epoch: int) -> bytes:
    return blake2b(f"eyas-order:{seed}:{epoch}".encode(), digest_size=32).digest()


def permute(position: int, size: int, *, seed: int, epoch: int) -> int:
    """Value at `position` of the permutation of range(size) that belongs to (seed, epoch)."""
    domain, key = _Domain.of(size), _epoch_key(seed, epoch)
    value = position
    while True:
        left, right = divmod(value, domain.columns)
        for number in range(_ROUNDS):
            if number % 2:
                right = (right + _round(key, number, left)) % domain.columns
            else:
                left = (left + _round(key, number, right)) % domain.rows
        value = left * domain.columns + right
        if value < size:
            return value


def position_of(value: int, size: int, *, seed: int, epoch: int) -> int:
    """Inverse of `permute`."""
    domain, key = _Domain.of(size), _epoch_key(seed, epoch)
    position = value
    while True:
        left, right = divmod(position, domain.columns)
        for number in reversed(range(_ROUNDS)):
            if number % 2:
                right = (right - _round(key, number, left)) % domain.columns
            else:
                left = (left - _round(key, number, right)) % domain.rows
        position = left * domain.columns + right
        if position < size:
            return position


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The whole order of a job. Windows count from 1, sequence numbers, groups and prompts from 0.

    `prompts` is N; 0 means "not prepared yet", and then the sequence is empty. With evaluation, prompts N .. N + H - 1
    are the held-out ones, and some windows evaluate instead of training (`rounds`); what the protocol calls a step is
    always the number of a window.
    """

    prompts: int
    window_size: int
    group_size: int
    epochs: int
    max_steps: int | None
    seed: int
    held_out: int = 0
    evaluate_every: int = 0
    """Training windows between two evaluations; 0 is never."""

    @staticmethod
    def of_job(config: JobConfig, prepared: wire.Prepared) -> "Schedule":
        """The order of a job whose inputs are prepared."""
        data, training, evaluation = config.data, config.training, config.evaluation
        return Schedule(
            prompts=prepared.prompt_count,
            window_size=training.window_size,
            group_size=data.group_size,
            epochs=data.epochs,
            max_steps=training.max_steps,
            seed=data.seed,
            held_out=prepared.held_out_count,
            evaluate_every=0 if evaluation is None else evaluation.every_steps,
        )

    @property
    def rounds(self) -> Rounds:
        """Where windows and groups of both kinds begin and end."""
        everything = self.epochs * self.prompts
        return Rounds(
            samples=everything if self.max_steps is None else min(everything, self.max_steps * self.window_size),
            window_size=self.window_size,
            group_size=self.group_size,
            held_out=self.held_out,
            every_steps=self.evaluate_every,
        )

    @property
    def total(self) -> int:
        """Number of sequence numbers: min(epochs * N, max_steps * Q), and the held-out samples of every round."""
        return self.rounds.total

    @property
    def total_steps(self) -> int:
        """Number of windows; the last one of each run may be short."""
        return self.rounds.windows

    @property
    def total_groups(self) -> int:
        """Number of capture groups; the last one of each run may be short."""
        return self.rounds.groups

    def prompt_of(self, sequence: int) -> int:
        """Prompt index of a sequence number."""
        evaluation, number = self.rounds.use_of(sequence)
        if evaluation:
            return self.prompts + number
        epoch, position = divmod(number, self.prompts)
        return permute(position, self.prompts, seed=self.seed, epoch=epoch)

    def sequences_of(self, prompt: int) -> tuple[int, ...]:
        """All sequence numbers that use a prompt, ascending, at most one an epoch, or one a round when held out."""
        rounds = self.rounds
        if prompt >= self.prompts:
            return rounds.sequences_of_held_out(prompt - self.prompts)
        uses = (
            epoch * self.prompts + position_of(prompt, self.prompts, seed=self.seed, epoch=epoch)
            for epoch in range(self.epochs)
        )
        return tuple(rounds.sequence_of_training(use) for use in uses if use < rounds.samples)

    def window(self, step: int) -> range:
        """Sequence numbers of window `step` (1-based)."""
        run = self.rounds.run_of_window(step)
        return _slice(run.sequences, step - run.first_window, self.window_size)

    def end_of(self, step: int) -> int:
        """First sequence number after window `step`; 0 for step 0. Not cut while the total is unknown."""
        return self.window(step).stop if self.prompts and step else step * self.window_size

    def training_step(self, step: int) -> int:
        """Optimizer steps made once window `step` is done."""
        return self.rounds.training_step(step) if step else 0

    def metrics(self, step: int, values: dict[str, float]) -> wire.StepMetrics:
        """Metrics of a window, as readers see them."""
        return wire.StepMetrics(
            step=step,
            values=values,
            training_step=self.training_step(step),
            evaluation=self.rounds.part(step) is not None,
        )

    def step_of(self, sequence: int) -> int:
        """Step whose window holds a sequence number."""
        run = self.rounds.run_of_sequence(sequence)
        return run.first_window + (sequence - run.sequences.start) // self.window_size

    def group_of(self, sequence: int) -> int:
        """Capture group of a sequence number."""
        run = self.rounds.run_of_sequence(sequence)
        return run.first_group + (sequence - run.sequences.start) // self.group_size

    def group(self, number: int) -> range:
        """Sequence numbers of a capture group."""
        run = self.rounds.run_of_group(number)
        return _slice(run.sequences, number - run.first_group, self.group_size)


def _slice(sequences: range, number: int, size: int) -> range:
    """The `number`-th piece of `size` of a range; the last one may be short, those beyond are empty."""
    start, stop = sequences.start, sequences.stop
    return range(min(start + number * size, stop), min(start + (number + 1) * size, stop))
