"""Port `CaptureEngine`: a capture group goes in, one outcome per member comes out.

An engine is handed every member of a group, those that are not to be captured included, because the group's shape is
what fixes the bits. It answers for each member that is to be captured: tensors, or a sentence saying what is wrong with
its *content*. Anything else that goes wrong (memory, device, I/O) is raised, and is never the sample's fault.

Tensor shapes: L true tokens of the sample, H the target's width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from eyas_contract.errors import Bug, UserError
from eyas_contract.refs import PromptTask
from eyas_contract.wire import Fingerprint
from eyas_runtime.train.eagle3.config import AUX_LAYERS, capture_layers

INPUT_IDS: Final = "input_ids"
LOSS_MASK: Final = "loss_mask"
AUX: Final = "hidden_state"
"""The three captured layers, concatenated; the name that SpecForge's loader gives them."""
LAST: Final = "target"
"""The last hidden state after the final norm."""
FIXED_BYTES_PER_TOKEN: Final = 9
"""int64 token id and uint8 mask."""
DTYPES: Final[dict[str, torch.dtype]] = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip
Features = Mapping[str, Tensor]
Advance = Callable[[], None]
"""Told whenever work moved (a layer, a file); raises when going on is pointless (`LeaseLost`, `Fenced`)."""


class LeaseLost(Exception):
    """The group belongs to somebody else now: leave it. Never the content's fault, hence no `RuntimeError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one member: `features`, or else `problem`."""

    task: PromptTask
    features: Features | None = None
    """input_ids int64 [L], loss_mask uint8 [L], hidden_state [L, 3H], target [L, H]; CPU, contiguous, owned."""
    problem: str = ""
    """A reproducible error of the content, as one sentence."""


class CaptureEngine(Protocol):
    """See the module docstring."""

    def fingerprint(self) -> Fingerprint:
        """Everything that may change the bits of a capture."""
        ...

    def capture(self, tasks: Sequence[PromptTask], padded_length: int, advance: Advance) -> list[Outcome]:
        """One outcome for each task with `capture` set, in order.

        The bits depend on `tasks` (members and their order) and `padded_length` only. Raises `UserError` when the
        inputs are no longer those that were prepared, and whatever device or I/O raise.
        """
        ...


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


def layer_ids(given: tuple[int, int, int] | None, layers: int) -> tuple[int, int, int]:
    """The captured layers. Those given must be distinct, ascending and within 0..layers-1; raises `UserError`.

    The defaults of a target of five or six layers name one layer twice, which is lawful.
    """
    if given is None:
        return capture_layers(layers)
    if len(set(given)) != AUX_LAYERS or tuple(sorted(given)) != tuple(given) or given[0] < 0 or given[-1] >= layers:
        raise UserError(
            f"target.captureLayers {list(given)} must be three ascending layer ids within 0..{layers - 1} of the target"
        )
    return given
