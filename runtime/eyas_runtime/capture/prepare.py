"""`prepare`: one pass over all prompts that fixes, once and for the whole job, what will be trained.

Its result (`wire.Prepared`) is a pure function of the inputs: digests, where each prompt is, how many tokens it has,
which tokens the draft can say. One producer makes it, the service keeps it, everybody compares digests with it. A wrong
line anywhere stops the job here, before a single capture, with a sentence that names the file and the line.
"""

import base64
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from eyas_contract.config import JobConfig
from eyas_contract.errors import Corrupt, UserError
from eyas_contract.refs import DTYPE_BYTES
from eyas_contract.wire import Inputs, Prepared
from eyas_runtime.capture.engine import FIXED_BYTES_PER_TOKEN, INPUT_IDS, LOSS_MASK
from eyas_runtime.capture.feature_files import check_against_target, read_features
from eyas_runtime.capture.prompts import Located, held_out, scan
from eyas_runtime.capture.targets import TargetShape, target_shape
from eyas_runtime.capture.tokenise import Tokeniser, Tokens, load_tokenizer
from eyas_runtime.inputs import feature_files, listed_files
from eyas_runtime.offline.manifest import check_file
from eyas_runtime.train.eagle3.vocab import build_vocab_map

PROMPTS_MAX: Final = 2_600_000
"""What fits the body of one prepare-commit."""
HEADER_BYTES: Final = 1024
"""Bound of what a blob holds beside its tensors."""
VECTORS_PER_TOKEN: Final = 4
"""Three captured layers and the last hidden state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One sample as prepare sees it."""

    file_index: int
    offset: int
    tokens: Tokens
    where: str


def prepare(config: JobConfig, inputs: Inputs, advance: Callable[[], None]) -> Prepared:
    """Go through all prompts (or feature files) of the job. Raises `UserError` naming the first wrong one."""
    shape = target_shape(config.target)
    samples = _features(config, shape) if config.data.features else _prompts(config)
    table = _Table(vocab_size=shape.vocab_size)
    for sample in samples:
        table.add(sample)
        advance()
    for sample in _held_out(config):
        table.add(sample, held_out=True)
        advance()
    return table.result(config, inputs, shape)


def _prompts(config: JobConfig) -> Iterator[Counted]:
    data = config.data
    if not data.prompts:
        raise UserError("the job has neither data.prompts nor data.features; give one of them")
    yield from _counted(config, scan(data.prompts))


def _held_out(config: JobConfig) -> Iterator[Counted]:
    if config.evaluation is None:
        return
    if config.data.features:
        raise UserError("evaluation.prompts needs data.prompts: without a target there is nobody to capture them")
    yield from _counted(config, held_out(config.data.prompts, config.evaluation.prompts))


def _counted(config: JobConfig, prompts: Iterator[Located]) -> Iterator[Counted]:
    data = config.data
    tokeniser = Tokeniser(load_tokenizer(config.target), max_length=data.max_length, chat_template=data.chat_template)
    for located in prompts:
        tokens = tokeniser.encode(located.prompt, located.where)
        yield Counted(file_index=located.file_index, offset=located.offset, tokens=tokens, where=located.where)


def _features(config: JobConfig, shape: TargetShape) -> Iterator[Counted]:
    for file_index, source in enumerate(config.data.features):
        listed = listed_files(source)
        for offset, path in enumerate(feature_files(source)):
            try:
                if path in listed:
                    check_file(path, listed[path])
                features = read_features(path, max_length=config.data.max_length)
                check_against_target(features, path, hidden_size=shape.hidden_size, vocab_size=shape.vocab_size)
            except Corrupt as error:
                raise UserError(f"{error}; mend the file or take it away") from error
            tokens = Tokens(
                input_ids=features[INPUT_IDS].numpy(), loss_mask=features[LOSS_MASK].numpy(), truncated=False
            )
            yield Counted(file_index=file_index, offset=offset, tokens=tokens, where=str(path))


class _Table:
    """Columns of the result, 18 bytes a prompt."""

    def __init__(self, *, vocab_size: int) -> None:
        self._files = array("H")
        self._offsets = array("Q")
        self._tokens = array("I")
        self._supervised = array("I")
        self._counts = np.zeros(vocab_size, dtype=np.int64)
        self._empty: list[int] = []
        self._truncated = 0
        self._held_out = 0

    def add(self, sample: Counted, *, held_out: bool = False) -> None:
        """Held-out samples come last. What they say has no say in the draft's vocabulary: it must be that of the same
        job without them."""
        index = len(self._files)
        if index >= PROMPTS_MAX:
            raise UserError(f"the job has more than {PROMPTS_MAX} prompts; split it")
        ids, mask = sample.tokens.input_ids, sample.tokens.loss_mask
        if int(ids.min()) < 0 or int(ids.max()) >= len(self._counts):
            raise UserError(
                f"{sample.where} gives a token id outside 0..{len(self._counts) - 1}: the tokenizer is not the target's"
            )
        self._files.append(sample.file_index)
        self._offsets.append(sample.offset)
        self._tokens.append(len(ids))
        self._supervised.append(sample.tokens.num_supervised)
        self._held_out += held_out
        if not held_out:
            self._counts += np.bincount(ids[mask != 0], minlength=len(self._counts))
        self._truncated += sample.tokens.truncated
        if not sample.tokens.num_supervised:
            self._empty.append(index)

    def result(self, config: JobConfig, inputs: Inputs, shape: TargetShape) -> Prepared:
        trained = len(self._files) - self._held_out
        for begin, end, word in ((0, trained, "prompt"), (trained, len(self._files), "held-out prompt")):
            if begin < end and end - begin == sum(begin <= index < end for index in self._empty):
                raise UserError(
                    f"no {word} has a supervised token: give conversations with assistant turns, or a template"
                )
        vocabulary = build_vocab_map(self._counts, min(config.draft.vocab_size, shape.vocab_size))
        vector_bytes = shape.hidden_size * DTYPE_BYTES[config.target.dtype]
        return Prepared(
            inputs=inputs,
            prompt_count=trained,
            file_indices=_base64(self._files),
            offsets=_base64(self._offsets),
            token_counts=_base64(self._tokens),
            supervised_counts=_base64(self._supervised),
            draft_to_target=base64.b64encode(vocabulary.d2t.astype("<i8").tobytes()).decode("ascii"),
            target_vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            bytes_per_token=VECTORS_PER_TOKEN * vector_bytes + FIXED_BYTES_PER_TOKEN,
            bytes_per_sample=HEADER_BYTES,
            held_out_count=self._held_out,
            truncated_prompts=self._truncated,
            empty_prompts=tuple(self._empty),
        )


def _base64(column: "array[int]") -> str:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return base64.b64encode(column.tobytes()).decode("ascii")
