"""The trainer's state as pieces of a checkpoint, and back: local shards of weights and optimizer moments.

A parameter is sharded by rows over the ranks (FSDP2) or whole on one; of several tensor ranks, what is sharded is a
slice. Pieces are boxes of whole tensors, so that any other layout of ranks finds its own in them. Names:
`weights/<parameter>`, `optimizer/exp_avg/<parameter>`, `optimizer/exp_avg_sq/<parameter>`, `optimizer/updates`
(AdamW's own count: windows without a live sample do not move it) and `vocabulary/d2t`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from eyas_contract.errors import Bug, Corrupt, UserError
from eyas_runtime.checkpoint.pieces import Piece, whole
from eyas_runtime.checkpoint.reader import CheckpointReader
from eyas_runtime.checkpoint.weights import WEIGHTS
from eyas_runtime.train.eagle3.model import Draft
from eyas_runtime.train.eagle3.tensor_slices import is_told_elsewhere, slice_of

MOMENTS: Final = ("exp_avg", "exp_avg_sq")
UPDATES: Final = "optimizer/updates"
D2T: Final = "vocabulary/d2t"


def moment_name(moment: str, parameter: str) -> str:
    """Name of a moment's tensor inside a checkpoint."""
    return f"optimizer/{moment}/{parameter}"


def prepare_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give every parameter its state (zeros, no update yet), so that saving and loading meet the same tensors."""
    for _, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=_local(parameter).device),
            **{moment: torch.zeros_like(parameter, requires_grad=False) for moment in MOMENTS},
        }


def pieces(model: Draft, optimizer: torch.optim.Optimizer, d2t: Sequence[int], rank: int) -> list[Piece]:
    """Copies in host memory of everything that this rank keeps of the state."""
    found: list[Piece] = []
    for name, parameter in model.named_parameters():
        if is_told_elsewhere(name, model.grid.tensor):
            continue
        for key, tensor in _tensors(name, parameter, optimizer):
            found.extend(_pieces_of(key, tensor, _Slice.of(name, tensor, model), rank))
    if rank == 0:
        found.append(whole(UPDATES, "int64", (), _updates(model, optimizer).to_bytes(8, "little")))
        found.append(whole(D2T, "int64", (len(d2t),), np.asarray(d2t, dtype="<i8").tobytes()))
    return found


def load(model: Draft, optimizer: torch.optim.Optimizer, d2t: Sequence[int], reader: CheckpointReader) -> None:
    """Fill this rank's shards from a checkpoint of any world size. Raises `Corrupt`, `UserError`."""
    stored = np.frombuffer(reader.read(D2T).tobytes(), dtype="<i8")
    if not np.array_equal(stored, np.asarray(d2t)):
        raise UserError("the checkpoint was trained with another vocabulary map than this job prepared")
    updates = int.from_bytes(reader.read(UPDATES).tobytes(), "little")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            optimizer.state[parameter]["step"].fill_(float(updates))
            for key, tensor in _tensors(name, parameter, optimizer):
                _fill(tensor, key, _Slice.of(name, tensor, model), reader)


def load_weights(model: Draft, read: Callable[[str], Tensor]) -> None:
    """Fill unsharded parameters from the whole tensors that `read(name)` gives, for instance an exported draft."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            found = read(name)
            mine = _Slice.of(name, parameter, model)
            if found.shape != mine.shape:
                raise UserError(f"draft.initialFrom: {name} is {tuple(found.shape)}, this draft needs {mine.shape}")
            parameter.copy_(found[mine.region()])


def is_finite(model: nn.Module) -> bool:
    """Whether every weight that this rank holds is finite."""
    return all(bool(_local(parameter).isfinite().all()) for parameter in model.parameters())


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class _Slice(NamedTuple):
    """What this rank holds of a whole tensor."""

    shape: tuple[int, ...]
    """Of the whole."""
    offset: tuple[int, ...]
    extent: tuple[int, ...]

    @classmethod
    def of(cls, name: str, tensor: Tensor, model: Draft) -> "_Slice":
        """Of `tensor`, which belongs to parameter `name`."""
        shape, first = slice_of(name, tensor.shape, model.grid.tensor)
        if not isinstance(tensor, DTensor):
            return cls(shape, first, tuple(tensor.shape))
        extent, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
        return cls(shape, tuple(a + b for a, b in zip(first, offset, strict=True)), tuple(extent))

    def region(self) -> tuple[slice, ...]:
        """The same as an index."""
        return tuple(slice(o, o + n) for o, n in zip(self.offset, self.extent, strict=True))


def _tensors(name: str, parameter: nn.Parameter, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The parameter and its moments, each with its name inside a checkpoint."""
    yield f"{WEIGHTS}{name}", parameter
    for moment in MOMENTS:
        yield moment_name(moment, name), optimizer.state[parameter][moment]


def _pieces_of(name: str, tensor: Tensor, mine: _Slice, rank: int) -> Iterator[Piece]:
    local = _local(tensor).detach()
    if local.dtype != torch.float32:
        raise Bug(f"{name} is {local.dtype}; masters and moments are float32")
    if not isinstance(tensor, DTensor) and rank != 0:
        raise Bug(f"{name} is not sharded, but rank {rank} holds it too")
    if local.numel():
        # A copy even on the CPU: the loop trains on while this is being written.
        copy = local.to("cpu", copy=True).contiguous()
        data = memoryview(copy.reshape(-1).view(torch.uint8).numpy().data)
        yield Piece(name=name, dtype="float32", shape=mine.shape, offset=mine.offset, extent=mine.extent, data=data)


def _fill(tensor: Tensor, name: str, mine: _Slice, reader: CheckpointReader) -> None:
    stored = reader.tensor(name)
    if stored.dtype != "float32" or stored.shape != mine.shape:
        raise Corrupt(f"{name} is {stored.dtype}{list(stored.shape)}, the draft needs float32{list(mine.shape)}")
    local = _local(tensor)
    if local.numel():
        raw = np.ascontiguousarray(reader.read(name, mine.offset, mine.extent)).view(np.float32).reshape(mine.extent)
        local.copy_(torch.from_numpy(raw.copy()))


def _updates(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    counts = {int(optimizer.state[parameter]["step"]) for parameter in model.parameters()}
    if len(counts) != 1:
        raise Bug(f"parameters were updated {sorted(counts)} times; every window updates all of them")
    return counts.pop()
