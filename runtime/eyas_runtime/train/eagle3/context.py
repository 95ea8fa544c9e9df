"""The type of the context that torch hands to a custom autograd function."""

from typing import Protocol

import torch
from torch import Tensor

from eyas_runtime.train.eagle3.grid import Line


class Context(Protocol):
    """torch's own members, and the few plain values that our functions leave for their backward."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    blocks: tuple[tuple[int, int], ...]
    """Causal blocks of the attention's slots."""
    scale: float
    """Scale of the attention's scores."""
    extra: tuple[object, ...]
    """What a fused kernel's backward wants besides tensors of ours."""
    dtype: torch.dtype
    """Dtype of the operand whose gradient was accumulated wider."""

    line: Line
    """Ranks among which something was exchanged."""
    sizes: tuple[int, ...]
    """Rows of each of them."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors until the backward pass."""

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say which outputs carry no gradient."""
