"""Keys, tasks and tensors for tests of the feature stores."""

import secrets

import torch

from eyas_contract.ids import JobUid, ObjectKey, object_key, sample_id
from eyas_contract.refs import PromptTask
from eyas_runtime.features.store import SampleMetadata


def new_job() -> JobUid:
    """A job UID that no other test has."""
    return JobUid(f"job{secrets.token_hex(8)}")


def new_key(job_uid: JobUid, *, epoch: int = 0, generation: int = 1) -> ObjectKey:
    """A fresh key, as the metadata service mints it."""
    return object_key(job_uid, epoch, generation, secrets.token_hex(16))


def new_task(job_uid: JobUid, *, sequence: int = 0, generation: int = 1, epoch: int = 0) -> PromptTask:
    """A task to capture sequence number `sequence` under a fresh key."""
    return PromptTask(
        sample_id=sample_id(sequence),
        sequence=sequence,
        prompt_index=0,
        file_index=0,
        offset=0,
        num_tokens=4,
        capture=True,
        key=new_key(job_uid, epoch=epoch, generation=generation),
        generation=generation,
    )


def new_tensors(seed: int = 0, *, tokens: int = 4, hidden: int = 8) -> dict[str, torch.Tensor]:
    """The tensors of one EAGLE3 sample."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "input_ids": torch.randint(0, 100, (1, tokens), generator=generator),
        "loss_mask": torch.randint(0, 2, (1, tokens), generator=generator).to(torch.uint8),
        "hidden_state": torch.randn(1, tokens, 3 * hidden, generator=generator).to(torch.bfloat16),
        "target": torch.randn(1, tokens, hidden, generator=generator).to(torch.bfloat16),
    }


METADATA = SampleMetadata(num_tokens=4, num_supervised=3)


def bits_of(tensor: torch.Tensor) -> bytes:
    """The bytes of `tensor` in row-major order."""
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
