"""Pieces: boxes of tensors that one rank holds, and the safetensors file that keeps them.

A piece knows the whole tensor's shape and where it begins, so that a reader with another number of ranks can cut its
own slices. The file is an ordinary safetensors file (8 bytes of header length, JSON, row-major bytes); which box of
which tensor an entry is stands in its `__metadata__`. Writing streams: nothing is copied, bytes are hashed on the way.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Corrupt
from eyas_runtime import digests, files

DTYPE_CODES: Final[Mapping[str, str]] = {
    "float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
DTYPE_NAMES: Final[Mapping[str, str]] = {code: name for name, code in DTYPE_CODES.items()}
ITEM_BYTES: Final[Mapping[str, int]] = {
    "float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint8": 1, "bool": 1,
}  # fmt: skip
HEADER_BYTES_MAX: Final = 64 << 20
"""As in the safetensors library: a longer header is an attack or damage."""
CHUNK_BYTES: Final = 8 << 20
"""Hashed, then written: large enough for few calls, small enough to be still in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The box [offset, offset + extent) of tensor `name`, as row-major bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    offset: tuple[int, ...]
    extent: tuple[int, ...]
    data: memoryview
    """prod(extent) * itemsize bytes."""

    def __post_init__(self) -> None:
        if not len(self.shape) == len(self.offset) == len(self.extent):
            raise ValueError(f"{self.name}: shape, offset and extent have different lengths")
        if any(o < 0 or e < 1 or o + e > s for o, e, s in zip(self.offset, self.extent, self.shape, strict=True)):
            raise ValueError(f"{self.name}: box {self.offset}+{self.extent} does not lie inside {self.shape}")
        if self.data.nbytes != math.prod(self.extent) * ITEM_BYTES[self.dtype]:
            raise ValueError(f"{self.name}: {self.data.nbytes} bytes do not fill {self.extent} of {self.dtype}")


def whole(name: str, dtype: str, shape: Sequence[int], data: bytes | bytearray | memoryview) -> Piece:
    """A piece that is a whole tensor."""
    full = tuple(shape)
    return Piece(
        name=name, dtype=dtype, shape=full, offset=(0,) * len(full), extent=full, data=memoryview(data).cast("B")
    )


class Box(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where one entry of a shard lies: in its tensor and in its file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: tuple[int, ...]
    extent: tuple[int, ...]
    begin: int
    """Absolute position of its first byte in the file."""
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a rank wrote."""

    nbytes: int
    digest: str
    """`blake3:<hex>` of the whole file."""


def write_shard(dir_fd: int, name: str, pieces: Sequence[Piece], *, tick: Callable[[], None]) -> Written:
    """Write `pieces` as the file `name`, durably (its directory entry included). `tick` is called once per chunk.

    Raises `OSError`; then nothing is left under `name`.
    """
    header = _header(pieces)
    state, nbytes = digests.hasher("blake3"), 0
    with files.replacing(dir_fd, name, replace=False) as file:
        for part in (memoryview(header), *(piece.data for piece in pieces)):
            for begin in range(0, part.nbytes, CHUNK_BYTES):
                chunk = part[begin : begin + CHUNK_BYTES]
                state.update(chunk)
                files.write_all(file.fileno(), [chunk])
                nbytes += chunk.nbytes
                tick()
    return Written(nbytes=nbytes, digest=f"blake3:{state.hexdigest()}")


def _header(pieces: Sequence[Piece]) -> bytes:
    entries: dict[str, object] = {}
    boxes: dict[str, object] = {}
    position = 0
    for number, piece in enumerate(pieces):
        # A tensor may have several boxes on one rank (tensor parallel sharding): the number keeps the keys apart.
        key = piece.name if piece.name not in entries else f"{piece.name}#{number}"
        entries[key] = {
            "dtype": DTYPE_CODES[piece.dtype],
            "shape": list(piece.extent),
            "data_offsets": [position, position + piece.data.nbytes],
        }
        boxes[key] = {"name": piece.name, "shape": list(piece.shape), "offset": list(piece.offset)}
        position += piece.data.nbytes
    metadata = {"format": "eyas-shard", "boxes": json.dumps(boxes, separators=(",", ":"))}
    body = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
    body += b" " * (-(8 + len(body)) % 8)
    return len(body).to_bytes(8, "little") + body


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    shape: tuple[int, ...]
    offset: tuple[int, ...]


def read_boxes(dir_fd: int, name: str) -> tuple[Box, ...]:
    """The boxes that the header of shard `name` describes. Raises `Corrupt` or `OSError`."""
    descriptor = files.open_regular(dir_fd, name)
    try:
        size = os.fstat(descriptor).st_size
        prefix = bytearray(8)
        files.read_into(descriptor, memoryview(prefix), name)
        length = int.from_bytes(prefix, "little")
        if not 2 <= length <= min(HEADER_BYTES_MAX, size - 8):
            raise Corrupt(f"{name}: a header of {length} bytes does not fit a file of {size}")
        header = bytearray(length)
        files.read_into(descriptor, memoryview(header), name)
    finally:
        os.close(descriptor)
    return _decode_header(bytes(header), 8 + length, size, name)


def _decode_header(header: bytes, base: int, size: int, name: str) -> tuple[Box, ...]:
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(raw.pop("__metadata__"), type=dict[str, str])
        places = msgspec.json.decode(metadata["boxes"].encode(), type=dict[str, _Place])
        entries = {key: msgspec.json.decode(value, type=_Entry) for key, value in raw.items()}
        boxes = tuple(_box(places[key], entry, base) for key, entry in entries.items())
    except (*UNDECODABLE, KeyError, ValueError) as error:
        raise Corrupt(f"{name}: its header is not that of a shard: {error}") from error
    for box in boxes:
        nbytes = math.prod(box.extent) * ITEM_BYTES[box.dtype]
        if not (base <= box.begin <= box.end <= size and box.end - box.begin == nbytes):
            raise Corrupt(f"{name}: tensor {box.name} lies outside the file or has another length")
    return boxes


def _box(place: _Place, entry: _Entry, base: int) -> Box:
    begin, end = entry.data_offsets
    if len(place.shape) != len(entry.shape) or len(place.shape) != len(place.offset):
        raise ValueError(f"{place.name} has boxes of different dimensions")
    dtype = DTYPE_NAMES[entry.dtype]
    return Box(place.name, dtype, place.shape, place.offset, entry.shape, base + begin, base + end)
