"""The prepared prompt set as arrays, and the tasks of a capture group made from it.

A group's shape comes from the token counts of *all* its members, dead and resident ones included: padding decides bits
in floating point, so it must not depend on who died.
"""

import sys
from array import array
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass

from eyas_contract import wire
from eyas_contract.errors import UserError
from eyas_contract.ids import ObjectKey, sample_id
from eyas_contract.refs import PromptTask
from eyas_runtime.core.sequence import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Decoded `wire.Prepared`: one entry a prompt in each array."""

    files: "array[int]"
    offsets: "array[int]"
    tokens: "array[int]"
    supervised: "array[int]"
    bytes_per_token: int
    bytes_per_sample: int

    @staticmethod
    def of(prepared: wire.Prepared) -> "Prompts":
        """Decode and check. Raises `UserError` naming the field whose length is wrong."""
        if prepared.prompt_count < 1:
            raise UserError("prepare found no prompt: data.prompts and data.features name no readable sample")
        if prepared.held_out_count < 0:
            raise UserError(f"prepared.held_out_count is {prepared.held_out_count}")
        count = prepared.prompt_count + prepared.held_out_count
        return Prompts(
            files=_decode("file_indices", prepared.file_indices, "H", count),
            offsets=_decode("offsets", prepared.offsets, "Q", count),
            tokens=_decode("token_counts", prepared.token_counts, "I", count),
            supervised=_decode("supervised_counts", prepared.supervised_counts, "I", count),
            bytes_per_token=prepared.bytes_per_token,
            bytes_per_sample=prepared.bytes_per_sample,
        )

    def estimated_bytes(self, prompt: int) -> int:
        """Bytes that the blob of a prompt will take, for reservations."""
        return self.tokens[prompt] * self.bytes_per_token + self.bytes_per_sample


def _decode(name: str, text: str, kind: str, count: int) -> "array[int]":
    try:
        raw = b64decode(text, validate=True)
    except ValueError as error:
        raise UserError(f"prepared.{name} is not base64: {error}") from error
    values = array(kind)
    if len(raw) != count * values.itemsize:
        raise UserError(f"prepared.{name} has {len(raw)} bytes, but {count} prompts need {count * values.itemsize}")
    values.frombytes(raw)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def estimated_bytes(schedule: Schedule, prompts: Prompts, sequences: range | list[int]) -> int:
    """Bytes that the blobs of `sequences` will take together."""
    return sum(prompts.estimated_bytes(schedule.prompt_of(sequence)) for sequence in sequences)


def capture_tasks(
    schedule: Schedule, prompts: Prompts, group: int, minted: Mapping[int, tuple[ObjectKey, int]]
) -> tuple[tuple[PromptTask, ...], int]:
    """Tasks of all members of a group in order, and the padded length.

    `minted` maps the sequence numbers to capture to their key and generation; the other members only shape the batch.
    """
    tasks = []
    for sequence in schedule.group(group):
        prompt = schedule.prompt_of(sequence)
        key, generation = minted.get(sequence, (None, 0))
        tasks.append(
            PromptTask(
                sample_id=sample_id(sequence),
                sequence=sequence,
                prompt_index=prompt,
                file_index=prompts.files[prompt],
                offset=prompts.offsets[prompt],
                num_tokens=prompts.tokens[prompt],
                capture=key is not None,
                key=key,
                generation=generation,
            )
        )
    return tuple(tasks), max(task.num_tokens for task in tasks)
