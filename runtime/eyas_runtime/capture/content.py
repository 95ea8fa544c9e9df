"""What is wrong with captured values, and the dtypes that they may have; shared by every engine that makes tensors."""

from typing import Final

import torch

from eyas_contract.errors import Bug
from eyas_runtime.capture.engine import AUX, INPUT_IDS, LAST, LOSS_MASK, Features
from eyas_runtime.train.eagle3.config import AUX_LAYERS

DTYPES: Final[dict[str, torch.dtype]] = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip


def content_problem(features: Features, *, hidden_size: int, dtype: torch.dtype) -> str:
    """What is wrong with the values of one sample; empty when all is well.

    Wrong names, widths or dtypes cannot come from content: they raise `Bug`. Values that are not finite can.
    """
    length = features[INPUT_IDS].shape[0] if INPUT_IDS in features else 0
    expected = {
        INPUT_IDS: ((length,), torch.int64),
        LOSS_MASK: ((length,), torch.uint8),
        AUX: ((length, AUX_LAYERS * hidden_size), dtype),
        LAST: ((length, hidden_size), dtype),
    }
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in features.items()}
    if found != expected or not length:
        raise Bug(f"the capture engine gave {found}, expected {expected}")
    for name in (AUX, LAST):
        if not bool(torch.isfinite(features[name]).all()):
            return f"{name} holds a value that is not finite"
    return ""
