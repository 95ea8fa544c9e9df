"""What fixes the bits of a training step: threads, seeds, algorithms, and the fingerprint that names them all.

Nothing in the objective draws random numbers today; the generators are seeded all the same per (job, step, rank), so
that whatever draws one later depends on neither history nor wall clock.
"""

import hashlib
import os

import torch

from eyas_contract.config import JobConfig, TrainingConfig
from eyas_contract.errors import UserError
from eyas_contract.wire import Fingerprint
from eyas_runtime.capture.fingerprint import device_facts, fingerprint_of


def configure(training: TrainingConfig, local_rank: int) -> torch.device:
    """Fix this process's threads and algorithms; call before anything is computed. Returns the rank's device.

    Raises `UserError` when the job asks for a GPU that is not here.
    """
    # cuBLAS promises equal bits only with a fixed workspace, and reads this before its first call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # oneDNN keeps a compiled kernel per shape, and unequal lengths make new shapes for ever: with its default of 1024
    # kernels a rank of the quickstart grows by a gigabyte in 40 steps, with 32 by a quarter of one, at equal speed.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    torch.set_num_threads(training.threads)
    if training.deterministic:
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory that it did not write; filling it with NaN would cost every allocation.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if training.device == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"training.device is cuda, but local rank {local_rank} finds {torch.cuda.device_count()} GPUs: "
            "lower consumers.processesPerPod or raise consumers.gpus"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def seed_step(job_uid: str, step: int, rank: int) -> None:
    """Seed every generator of this process for one step."""
    digest = hashlib.sha256(f"{job_uid}/{step}/{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def training_fingerprint(config: JobConfig, device: torch.device, world_size: int) -> Fingerprint:
    """Everything that must be equal for two runs to promise equal bits, the number of ranks included."""
    training = config.training
    facts = {
        **device_facts(device),
        "trainer": "eagle3",
        "world_size": str(world_size),
        "sequence_ranks": str(training.parallelism.sequence),
        "tensor_ranks": str(training.parallelism.tensor),
        "collectives": "nccl" if device.type == "cuda" else "gloo",
        "nccl_algorithm": os.environ.get("NCCL_ALGO", "") if device.type == "cuda" else "",
        "threads": str(training.threads),
        "dtype": training.dtype,
        "deterministic": str(training.deterministic),
        "micro_batch_size": str(training.micro_batch_size),
    }
    if training.packing_tokens is not None:
        # Named only where it is used, so that jobs without it keep their fingerprint.
        facts["packing_tokens"] = str(training.packing_tokens)
    return fingerprint_of(facts)
