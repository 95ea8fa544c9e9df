"""A real draft training in miniature: a tiny target folder, and features that are a function of the sequence number.

The features are random numbers instead of captured states, so no target runs; everything from the store on is real.
"""

import base64
import struct
from collections.abc import Callable
from pathlib import Path

import torch

from eyas_contract import wire
from eyas_contract.config import CheckpointConfig, JobConfig
from eyas_contract.refs import PromptTask, SampleRef
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.features.store import FeatureStore, SampleMetadata
from eyas_runtime.inputs import digest_inputs
from support.metadata_service import FINGERPRINT, UID
from support.tiny_target import VOCAB_SIZE, make_tiny_target, tiny_job, write_tiny_prompts

HIDDEN = 32
DRAFT_VOCAB = 64
PROMPTS = 12


def tokens_of(index: int) -> int:
    """Token count of prompt `index`."""
    return 5 + index % 7


def draft_inputs(folder: Path) -> tuple[Path, Path]:
    """A target folder and a prompt file, made once per test session."""
    target = make_tiny_target(folder / "target", hidden=HIDDEN)
    return target, write_tiny_prompts(folder / "prompts.jsonl", PROMPTS)


def draft_job(folder: Path, inputs: tuple[Path, Path], *, every_steps: int = 2, **training: object) -> JobConfig:
    """Configuration of a small job over `inputs`."""
    target, prompts = inputs
    return tiny_job(
        folder,
        target=target,
        prompts=(prompts,),
        job_uid=UID,
        draft={"vocab_size": DRAFT_VOCAB, "steps": 3},
        training={
            "window_size": 4,
            "learning_rate": 1e-2,
            "checkpoint": CheckpointConfig(path=str(folder / "checkpoints"), every_steps=every_steps, keep=2),
            **training,
        },
    )


def prepared_of(config: JobConfig, count: int = PROMPTS) -> wire.Prepared:
    """What `prepare` would record: the draft knows every fourth token."""

    def packed(kind: str, values: list[int]) -> str:
        return base64.b64encode(struct.pack(f"<{len(values)}{kind}", *values)).decode("ascii")

    kept = [4 * i for i in range(DRAFT_VOCAB)]
    return wire.Prepared(
        inputs=digest_inputs(config),
        prompt_count=count,
        file_indices=packed("H", [0] * count),
        offsets=packed("Q", list(range(count))),
        token_counts=packed("I", [tokens_of(i) for i in range(count)]),
        supervised_counts=packed("I", [tokens_of(i) - 2 for i in range(count)]),
        draft_to_target=packed("q", [token - i for i, token in enumerate(kept)]),
        target_vocab_size=VOCAB_SIZE,
        hidden_size=HIDDEN,
        bytes_per_token=4 * HIDDEN * 4 + 9,
        bytes_per_sample=4096,
    )


def features_of(task: PromptTask) -> dict[str, torch.Tensor]:
    """Deterministic features of one sample."""
    generator = torch.Generator().manual_seed(1000 + task.sequence)
    length = task.num_tokens
    mask = torch.ones(length, dtype=torch.uint8)
    mask[0] = 0
    return {
        "input_ids": torch.randint(0, VOCAB_SIZE, (length,), generator=generator),
        "loss_mask": mask,
        "hidden_state": torch.randn(length, 3 * HIDDEN, generator=generator),
        "target": torch.randn(length, HIDDEN, generator=generator) * 3,
    }


def put_features(
    change: Callable[[PromptTask, dict[str, torch.Tensor]], None] = lambda task, features: None,
) -> Callable[[PromptTask, BlobStore], SampleRef]:
    """A producer's `make_ref` over the real feature store; `change` may damage what is captured."""

    def make(task: PromptTask, blobs: BlobStore) -> SampleRef:
        features = features_of(task)
        change(task, features)
        metadata = SampleMetadata(
            num_tokens=task.num_tokens, num_supervised=task.num_tokens - 2, fingerprint=FINGERPRINT.digest
        )
        return FeatureStore(blobs, job_uid=UID, retain_on_release=True).put(features, task, metadata)

    return make
