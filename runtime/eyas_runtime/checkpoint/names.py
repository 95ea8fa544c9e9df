"""Names inside the checkpoint folder. A directory carries step, attempt and incarnation: no two lives share one."""

import re
from dataclasses import dataclass
from typing import Final

from eyas_contract.ids import Incarnation

ROOT_MARKER: Final = "eyas-checkpoints.json"
"""File in the folder of a job's checkpoints; where it cannot be read nothing is judged."""
MANIFEST: Final = "manifest.json"
BEST: Final = "best.json"
"""File in the folder of a job's checkpoints: which of them is the best one."""
LAYOUT: Final = "layout.json"
RECEIPT: Final = "receipt.json"
STRUCK: Final = "struck.json"
"""Says that the service went back to an earlier step: the directory is of another line of history, for ever."""

_DIRECTORY: Final = re.compile(r"step-([0-9]{9,12})\.a([0-9]{1,9})\.([0-9a-f]{8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryName:
    """The parts of a checkpoint directory's name."""

    step: int
    attempt: int
    incarnation_start: str
    """First eight hex digits of the incarnation."""


def directory_name(*, step: int, attempt: int, incarnation: Incarnation) -> str:
    """For example `step-000000050.a3.1f0c9a77`."""
    return f"step-{step:09d}.a{attempt}.{incarnation[:8]}"


def parse_directory(name: str) -> DirectoryName | None:
    """The parts of `name`, or None for anything that is not a checkpoint directory of ours."""
    match = _DIRECTORY.fullmatch(name)
    if match is None:
        return None
    return DirectoryName(step=int(match[1]), attempt=int(match[2]), incarnation_start=match[3])


def shard_name(rank: int, world_size: int) -> str:
    """For example `rank-00000-of-00002.safetensors`."""
    return f"rank-{rank:05d}-of-{world_size:05d}.safetensors"
