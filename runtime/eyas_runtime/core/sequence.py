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

from eyas_contract.config import JobConfig

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
    """The whole order of a job. Steps count from 1, sequence numbers, groups and prompts from 0.

    `prompts` is N; 0 means "not prepared yet", and then the sequence is empty.
    """

    prompts: int
    window_size: int
    group_size: int
    epochs: int
    max_steps: int | None
    seed: int

    @classmethod
    def of_job(cls, config: JobConfig, prompts: int) -> "Schedule":
        """The order of the job over its prepared prompts."""
        data, training = config.data, config.training
        return cls(
            prompts=prompts,
            window_size=training.window_size,
            group_size=data.group_size,
            epochs=data.epochs,
            max_steps=training.max_steps,
            seed=data.seed,
        )

    @property
    def total(self) -> int:
        """Number of sequence numbers: min(epochs * N, max_steps * Q)."""
        everything = self.epochs * self.prompts
        return everything if self.max_steps is None else min(everything, self.max_steps * self.window_size)

    @property
    def total_steps(self) -> int:
        """Number of windows; the last one may be short."""
        return -(-self.total // self.window_size)

    @property
    def total_groups(self) -> int:
        """Number of capture groups; the last one may be short."""
        return -(-self.total // self.group_size)

    def prompt_of(self, sequence: int) -> int:
        """Prompt index of a sequence number."""
        epoch, position = divmod(sequence, self.prompts)
        return permute(position, self.prompts, seed=self.seed, epoch=epoch)

    def sequences_of(self, prompt: int) -> tuple[int, ...]:
        """All sequence numbers that use a prompt, ascending, at most one an epoch."""
        uses = (
            epoch * self.prompts + position_of(prompt, self.prompts, seed=self.seed, epoch=epoch)
            for epoch in range(self.epochs)
        )
        return tuple(use for use in uses if use < self.total)

    def window(self, step: int) -> range:
        """Sequence numbers of window `step` (1-based)."""
        return range(min((step - 1) * self.window_size, self.total), min(step * self.window_size, self.total))

    def end_of(self, step: int) -> int:
        """First sequence number after window `step`; 0 for step 0. Not cut while the total is unknown."""
        end = step * self.window_size
        return min(end, self.total) if self.prompts else end

    def step_of(self, sequence: int) -> int:
        """Step whose window holds a sequence number."""
        return sequence // self.window_size + 1

    def group_of(self, sequence: int) -> int:
        """Capture group of a sequence number."""
        return sequence // self.group_size

    def group(self, number: int) -> range:
        """Sequence numbers of a capture group."""
        return range(min(number * self.group_size, self.total), min((number + 1) * self.group_size, self.total))
