"""Where evaluation windows lie among training windows: after every E of them, and after the last one.

Held-out samples are used in the one sequence of a job, so that leases, seals, acks, checkpoints and the audit treat
them as any other sample. A *round* is E training windows (the last round may have fewer) and then as many evaluation
windows as the H held-out samples need, in the order of their files. Windows and capture groups never span two runs,
and training groups are those of the same job without evaluation: what is trained together, and padded together, does
not depend on whether somebody looks. Everything is arithmetic on a few numbers; nothing is stored.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from eyas_contract.errors import UserError
from eyas_contract.ids import SEQUENCE_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Consecutive windows of one kind."""

    evaluation: bool
    round: int
    """Counts from 0."""
    sequences: range
    first_window: int
    """Windows count from 1."""
    first_group: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One evaluation window of a round."""

    training_step: int
    """Optimizer steps that were made before the round."""
    number: int
    """0 .. of - 1."""
    of: int

    @property
    def is_last(self) -> bool:
        """Whether the round's metrics are complete with this window."""
        return self.number == self.of - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Which sequence numbers are held-out uses, as a test of single numbers that SQL can make as well.

    A number of the job is one exactly when `number % cycle >= offset or number >= last`.
    """

    cycle: int
    offset: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """The geometry of a job with `samples` training samples. Without evaluation it is one run of training windows."""

    samples: int
    window_size: int
    group_size: int
    held_out: int = 0
    every_steps: int = 0
    """Training windows between two evaluations; 0 is never."""

    def __post_init__(self) -> None:
        if self.is_on and self._period % self.group_size:
            raise UserError(
                f"evaluation.everySteps {self.every_steps} times training.windowSize {self.window_size} is no multiple "
                f"of data.groupSize {self.group_size}: capture groups of training samples would depend on evaluation"
            )

    @property
    def is_on(self) -> bool:
        """Whether there are evaluation windows at all."""
        return self.every_steps > 0 and self.held_out > 0

    @property
    def count(self) -> int:
        """Number of rounds."""
        return _parts(self.samples, self._period) if self.is_on else 0

    @property
    def training_steps(self) -> int:
        """Number of training windows: optimizer steps of the whole job."""
        return _parts(self.samples, self.window_size)

    @property
    def total(self) -> int:
        """Number of sequence numbers."""
        return self.samples + self.count * self.held_out

    @property
    def windows(self) -> int:
        """Number of windows of both kinds."""
        return self.training_steps + self.count * _parts(self.held_out, self.window_size)

    @property
    def groups(self) -> int:
        """Number of capture groups."""
        return _parts(self.samples, self.group_size) + self.count * _parts(self.held_out, self.group_size)

    @property
    def _period(self) -> int:
        """Training samples of a full round."""
        return self.every_steps * self.window_size

    def runs(self) -> Iterator[Run]:
        """All runs in order."""
        for number in range(max(1, self.count)):
            yield self._training(number)
            if self.is_on:
                yield self._evaluation(number)

    def run_of_sequence(self, sequence: int) -> Run:
        """The run of a sequence number; the last one for numbers beyond the end."""
        if not self.is_on:
            return self._training(0)
        return self._choose(sequence // (self._period + self.held_out), lambda run: sequence < run.sequences.stop)

    def run_of_window(self, window: int) -> Run:
        """The run of a window; the first one for window 0, the last one for windows beyond the end."""
        if not self.is_on:
            return self._training(0)
        number = (window - 1) // (self.every_steps + _parts(self.held_out, self.window_size))
        return self._choose(
            number, lambda run: window < run.first_window + _parts(len(run.sequences), self.window_size)
        )

    def run_of_group(self, group: int) -> Run:
        """The run of a capture group; the last one for groups beyond the end."""
        if not self.is_on:
            return self._training(0)
        number = group // (self._period // self.group_size + _parts(self.held_out, self.group_size))
        return self._choose(number, lambda run: group < run.first_group + _parts(len(run.sequences), self.group_size))

    def use_of(self, sequence: int) -> tuple[bool, int]:
        """(False, number of the training sample) or (True, number of the held-out sample), both from 0."""
        run = self.run_of_sequence(sequence)
        inside = sequence - run.sequences.start
        return run.evaluation, inside if run.evaluation else run.round * self._period + inside

    @property
    def pattern(self) -> Pattern:
        """Where held-out uses lie; nowhere without evaluation."""
        if not self.is_on:
            return Pattern(cycle=1, offset=1, last=SEQUENCE_MAX + 1)
        return Pattern(cycle=self._period + self.held_out, offset=self._period, last=self.total - self.held_out)

    @property
    def windows_of_round(self) -> tuple[int, int]:
        """Windows of a full round, and how many of them train; without evaluation each window is one."""
        if not self.is_on:
            return 1, 1
        return self.every_steps + _parts(self.held_out, self.window_size), self.every_steps

    def held_out_below(self, sequence: int) -> int:
        """How many of the sequence numbers below `sequence` (at most `total`) are held-out uses."""
        if not self.is_on:
            return 0
        run = self.run_of_sequence(sequence)
        return run.round * self.held_out + (sequence - run.sequences.start if run.evaluation else 0)

    def sequence_of_training(self, number: int) -> int:
        """Sequence number of a training sample."""
        return number + number // self._period * self.held_out if self.is_on else number

    def sequences_of_held_out(self, number: int) -> tuple[int, ...]:
        """Sequence numbers of a held-out sample, one a round."""
        return tuple(self._evaluation(round_).sequences.start + number for round_ in range(self.count))

    def training_step(self, window: int) -> int:
        """Optimizer steps made once `window` is done: of a training window, the number of its own step."""
        run = self.run_of_window(window)
        if run.evaluation:
            return min((run.round + 1) * self.every_steps, self.training_steps)
        return run.round * self.every_steps + window - run.first_window + 1

    def last_training(self, window: int) -> int:
        """The newest training window that is not after `window`; 0 when there is none."""
        run = self.run_of_window(window)
        return run.first_window - 1 if run.evaluation else window

    def last_evaluation(self, window: int) -> int:
        """The last window of the newest round that ends not after `window`; 0 when there is none."""
        run, part = self.run_of_window(window), self.part(window)
        if part is not None and part.is_last:
            return window
        return self._training(run.round).first_window - 1

    def part(self, window: int) -> Part | None:
        """Which part of an evaluation a window is; None for a training window."""
        run = self.run_of_window(window)
        if not run.evaluation:
            return None
        return Part(
            training_step=self.training_step(window),
            number=window - run.first_window,
            of=_parts(self.held_out, self.window_size),
        )

    def _training(self, number: int) -> Run:
        if not self.is_on:
            return Run(evaluation=False, round=0, sequences=range(self.samples), first_window=1, first_group=0)
        start = number * (self._period + self.held_out)
        samples = max(0, min(self._period, self.samples - number * self._period))
        return Run(
            evaluation=False,
            round=number,
            sequences=range(start, start + samples),
            first_window=1 + number * (self.every_steps + _parts(self.held_out, self.window_size)),
            first_group=number * (self._period // self.group_size + _parts(self.held_out, self.group_size)),
        )

    def _evaluation(self, number: int) -> Run:
        before = self._training(number)
        samples = len(before.sequences)
        return Run(
            evaluation=True,
            round=number,
            sequences=range(before.sequences.stop, before.sequences.stop + self.held_out),
            first_window=before.first_window + _parts(samples, self.window_size),
            first_group=before.first_group + _parts(samples, self.group_size),
        )

    def _choose(self, number: int, is_inside: Callable[[Run], bool]) -> Run:
        number = max(0, min(number, self.count - 1))
        training = self._training(number)
        return training if is_inside(training) else self._evaluation(number)


def _parts(whole: int, size: int) -> int:
    return -(-whole // size)
