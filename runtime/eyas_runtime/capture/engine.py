"""Port `CaptureEngine`: a capture group goes in, one outcome per member comes out.

An engine is handed every member of a group, those that are not to be captured included, because the group's shape is
what fixes the bits. It answers for each member that is to be captured: tensors, or a sentence saying what is wrong with
its *content*. Anything else that goes wrong (memory, device, I/O) is raised, and is never the sample's fault.

Tensor shapes: L true tokens of the sample, H the target's width. Torch-free: the fake engine runs where there is none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from eyas_contract.errors import UserError
from eyas_contract.refs import PromptTask
from eyas_contract.wire import Fingerprint
from eyas_runtime.train.eagle3.config import AUX_LAYERS, capture_layers

if TYPE_CHECKING:
    from torch import Tensor

INPUT_IDS: Final = "input_ids"
LOSS_MASK: Final = "loss_mask"
AUX: Final = "hidden_state"
"""The three captured layers, concatenated; the name that SpecForge's loader gives them."""
LAST: Final = "target"
"""The last hidden state after the final norm."""
FIXED_BYTES_PER_TOKEN: Final = 9
"""int64 token id and uint8 mask."""
Features = Mapping[str, "Tensor"]
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
