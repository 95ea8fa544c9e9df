"""The weights that a job may start from: an exported draft, or a checkpoint of another job.

Only weights are taken over; step, optimizer and data begin anew, because they belong to another sequence of samples.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eyas_contract.errors import Corrupt, UserError
from eyas_runtime import files
from eyas_runtime.checkpoint import manifest as manifests
from eyas_runtime.checkpoint.names import MANIFEST
from eyas_runtime.checkpoint.reader import CheckpointReader
from eyas_runtime.checkpoint.weights import WEIGHTS

PREFIX = "draft_model."
"""Some exports carry it before every name."""


def draft_reader(folder: Path) -> Callable[[str], Tensor]:
    """Reads the tensors of the draft in `folder` by parameter name.

    A checkpoint's files are compared with its manifest. Raises `UserError` for a folder or tensor that is not there.
    """
    if (folder / MANIFEST).is_file():
        return _checkpoint_reader(folder)
    weight_files = sorted(folder.glob("*.safetensors"))
    if not weight_files:
        raise UserError(f"draft.initialFrom {folder} has neither a *.safetensors file nor a checkpoint's {MANIFEST}")

    def read(name: str) -> Tensor:
        for path in weight_files:
            try:
                with safe_open(str(path), framework="pt", device="cpu") as file:
                    found = [key for key in file.keys() if key.removeprefix(PREFIX) == name]  # noqa: SIM118
                    if found:
                        tensor: Tensor = file.get_tensor(found[0])
                        return tensor
            except (OSError, SafetensorError) as error:
                raise UserError(f"draft.initialFrom: cannot read {path}: {error}") from error
        raise UserError(f"draft.initialFrom {folder} has no tensor {name}")

    return read


def _checkpoint_reader(folder: Path) -> Callable[[str], Tensor]:
    try:
        raw = files.read_verified(folder / MANIFEST, bytes_max=manifests.MANIFEST_BYTES_MAX)
        reader = CheckpointReader(folder, manifest_digest=manifests.digest_of(raw))
    except (OSError, Corrupt) as error:
        raise UserError(f"draft.initialFrom: cannot read the checkpoint {folder}: {error}") from error

    def read(name: str) -> Tensor:
        try:
            stored = reader.tensor(f"{WEIGHTS}{name}")
            array = np.ascontiguousarray(reader.read(f"{WEIGHTS}{name}")).view(np.float32)
        except (OSError, Corrupt) as error:
            raise UserError(f"draft.initialFrom: {folder}: {error}") from error
        return torch.from_numpy(array.reshape(stored.shape).copy())

    return read
