"""Engine for prompts: read, tokenise, run the target on the whole group, and judge what may be poison.

A group is one forward pass of fixed shape [members, padded length]. When it raises, or gives values that are not
finite, the question is whether the content or the machine is to blame. Content is blamed only if the same thing happens
again to that member alone while a harmless row of the same shape passes; memory, device and I/O errors are never
content. A blamed member's row is replaced by padding and the others are captured in the same shape, which gives the
same bits whenever any of them is captured again.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from eyas_contract.errors import Bug, UserError
from eyas_contract.refs import PromptTask
from eyas_contract.wire import Fingerprint
from eyas_runtime.capture.content import content_problem
from eyas_runtime.capture.engine import AUX, INPUT_IDS, LAST, LOSS_MASK, Advance, Features, Outcome
from eyas_runtime.capture.prompts import read_at
from eyas_runtime.capture.tokenise import Tokeniser, Tokens

PAD_ID: Final = 0
"""Any id of the vocabulary: no true position can see padding."""


class HiddenStates(Protocol):
    """The target's body; `TransformersModel` is one."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def fingerprint(self) -> Fingerprint: ...
    def forward(self, rows: Tensor, advance: Advance) -> tuple[Tensor, Tensor]:
        """int64 [B, T] -> (layers [B, T, 3H], last hidden state [B, T, H])."""
        ...


class PromptEngine:
    """`CaptureEngine` for prompts."""

    def __init__(self, files: tuple[str, ...], tokeniser: Tokeniser, model: HiddenStates) -> None:
        self._files = files
        self._tokeniser = tokeniser
        self._model = model

    def fingerprint(self) -> Fingerprint:
        """That of the target's engine."""
        return self._model.fingerprint()

    def capture(self, tasks: Sequence[PromptTask], padded_length: int, advance: Advance) -> list[Outcome]:
        """See `CaptureEngine.capture`."""
        tokens = [self._tokens(task, padded_length) for task in tasks]
        rows = padded_rows([sample.input_ids for sample in tokens], padded_length)
        first = self._attempt(tasks, tokens, rows, advance)
        if not any(outcome.problem for outcome in first):
            return first
        self._check_machine(rows, advance)
        second = self._attempt(tasks, tokens, rows, advance)
        for before, after in zip(first, second, strict=True):
            if after.problem and after.problem != before.problem:
                raise RuntimeError(
                    f"two captures of {after.task.sample_id} differ, so the machine is to blame: first "
                    f"{before.problem or 'well'}, then {after.problem}"
                )
        return second

    def _check_machine(self, rows: Tensor, advance: Advance) -> None:
        """Raise `RuntimeError` if padding alone fails too: then no content is to blame."""
        aux, last = self._model.forward(torch.full_like(rows[:1], PAD_ID), advance)
        if not bool(torch.isfinite(aux).all() and torch.isfinite(last).all()):
            raise RuntimeError("the target gives values that are not finite for padding alone; the machine is to blame")

    def _tokens(self, task: PromptTask, padded_length: int) -> Tokens:
        located = read_at(self._files, task.file_index, task.offset)
        sample = self._tokeniser.encode(located.prompt, located.where)
        count = len(sample.input_ids)
        if count != task.num_tokens or count > padded_length:
            raise UserError(
                f"{located.where} has {count} tokens, but {task.num_tokens} when the job was prepared: it or the "
                "tokenizer changed; restore it, or start a new job"
            )
        return sample

    def _attempt(
        self, tasks: Sequence[PromptTask], tokens: Sequence[Tokens], rows: Tensor, advance: Advance
    ) -> list[Outcome]:
        blamed: dict[int, str] = {}
        try:
            aux, last = self._model.forward(rows, advance)
        except (RuntimeError, ValueError, IndexError) as error:
            if not _may_be_content(error):
                raise
            blamed = self._blame(rows, error, advance)
            aux, last = self._model.forward(_without(rows, blamed), advance)
        outcomes = []
        for place, (task, sample) in enumerate(zip(tasks, tokens, strict=True)):
            if not task.capture:
                continue
            problem = blamed.get(place, "")
            features = None if problem else _member(sample, aux[place], last[place])
            if features is not None:
                problem = content_problem(features, hidden_size=self._model.hidden_size, dtype=self._model.dtype)
            outcomes.append(Outcome(task=task, features=None if problem else features, problem=problem))
        return outcomes

    def _blame(self, rows: Tensor, error: Exception, advance: Advance) -> dict[int, str]:
        """Which rows raise by themselves, twice, while padding alone does not; re-raises `error` when none does."""
        self._check_machine(rows, advance)
        blamed: dict[int, str] = {}
        for place in range(rows.shape[0]):
            first, second = (self._error_of(rows[place : place + 1], advance) for _ in range(2))
            if first and first == second:
                blamed[place] = f"the target raises {first}"
        if not blamed:
            raise error
        return blamed

    def _error_of(self, row: Tensor, advance: Advance) -> str:
        try:
            self._model.forward(row, advance)
        except (RuntimeError, ValueError, IndexError) as error:
            if not _may_be_content(error):
                raise
            return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        return ""


def padded_rows(ids: Sequence[npt.NDArray[np.int64]], padded_length: int) -> Tensor:
    """int64 [B, padded_length], padded on the right."""
    rows = torch.full((len(ids), padded_length), PAD_ID, dtype=torch.int64)
    for row, sample in zip(rows, ids, strict=True):
        row[: len(sample)] = torch.from_numpy(sample)
    return rows


def _without(rows: Tensor, places: dict[int, str]) -> Tensor:
    kept = rows.clone()
    kept[list(places)] = PAD_ID
    return kept


def _member(sample: Tokens, aux: Tensor, last: Tensor) -> Features:
    length = len(sample.input_ids)
    return {
        INPUT_IDS: torch.from_numpy(sample.input_ids.copy()),
        LOSS_MASK: torch.from_numpy(sample.loss_mask.copy()),
        AUX: aux[:length].cpu().contiguous().clone(),
        LAST: last[:length].cpu().contiguous().clone(),
    }


def _may_be_content(error: Exception) -> bool:
    """False for what no content can be blamed for: memory, the device, our own assertions."""
    if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError | Bug):
        return False
    text = str(error).lower()
    return not any(
        word in text for word in ("out of memory", "alloc", "cuda", "cublas", "cudnn", "nccl", "device-side")
    )
