"""The digest of the trained weights: equal for equal weights, however many ranks hold them.

SHA-256 over, for every trainable tensor in order of names: the name, dtype and shape as one JSON line, then its bytes
in row-major order. Torch-free; bytes come from the shard files themselves, so what is hashed is what was written.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from eyas_runtime.checkpoint.pieces import ITEM_BYTES
from eyas_runtime.checkpoint.reader import SliceReader

WEIGHTS: Final = "weights/"
"""Prefix of the trainable tensors inside a checkpoint; the digest sees the names without it."""
ROWS_BYTES: Final = 64 << 20
"""Bytes put together at a time."""


class WeightsHasher:
    """Takes whole tensors in order of their names."""

    def __init__(self) -> None:
        self._state = hashlib.sha256()
        self._last = ""

    def begin(self, name: str, dtype: str, shape: Sequence[int]) -> None:
        """Start tensor `name`, which must come after the one before."""
        if name <= self._last:
            raise ValueError(f"tensor {name} comes after {self._last}: names are hashed in order, once")
        self._last = name
        line = json.dumps({"dtype": dtype, "name": name, "shape": list(shape)}, sort_keys=True, separators=(",", ":"))
        self._state.update(line.encode() + b"\n")

    def update(self, data: bytes | memoryview) -> None:
        """The next row-major bytes of the tensor begun."""
        self._state.update(data)

    def hexdigest(self) -> str:
        """64 hex digits."""
        return self._state.hexdigest()


def of_checkpoint(reader: SliceReader, *, tick: Callable[[], None] = lambda: None) -> str:
    """Digest of the tensors under `weights/` of an open checkpoint, read in bounded slices of rows."""
    state = WeightsHasher()
    for name in sorted(name for name in reader.layout.tensors if name.startswith(WEIGHTS)):
        tensor = reader.tensor(name)
        state.begin(name.removeprefix(WEIGHTS), tensor.dtype, tensor.shape)
        for offset, extent in _slices(tensor.shape, ITEM_BYTES[tensor.dtype]):
            state.update(reader.read(name, offset, extent).tobytes())
            tick()
    return state.hexdigest()


def _slices(shape: tuple[int, ...], item_bytes: int) -> Iterable[tuple[tuple[int, ...], tuple[int, ...]]]:
    if not shape:
        yield (), ()
        return
    row_bytes = max(1, math.prod(shape[1:]) * item_bytes)
    rows = max(1, ROWS_BYTES // row_bytes)
    for first in range(0, shape[0], rows):
        yield (first, *(0 for _ in shape[1:])), (min(rows, shape[0] - first), *shape[1:])
