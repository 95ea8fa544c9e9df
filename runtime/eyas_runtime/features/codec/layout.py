"""The safetensors format, read and written here so that tensors need not be copied.

A file is eight bytes of length, a JSON header, and the tensors' bytes without gaps. What is written is canonical (by
element size, then name; header padded with spaces), so equal tensors give equal bytes, and the library `safetensors`
reads it. What is read is hostile until proven otherwise: every length is bounded before memory is touched, and the
tensors must tile the data exactly.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Corrupt, UserError
from eyas_contract.refs import DTYPE_BYTES, FeatureSpec

HEADER_BYTES_MAX: Final = 1 << 20
TENSORS_MAX: Final = 256
RANK_MAX: Final = 8
ELEMENTS_MAX: Final = 1 << 48
ALIGNMENT: Final = 64
CODES: Final[Mapping[str, str]] = {
    "float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""dtype names of refs to those of the format."""
_DTYPES: Final = {code: dtype for dtype, code in CODES.items()}
_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,128}")


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class Placed(msgspec.Struct, frozen=True):
    """One tensor and where its bytes are."""

    spec: FeatureSpec
    start: int
    """Offset from the beginning of the safetensors file."""


def order(specs: Sequence[FeatureSpec]) -> list[FeatureSpec]:
    """`specs` in the canonical order: large elements first, so each tensor is aligned to its own element size."""
    return sorted(specs, key=lambda spec: (-DTYPE_BYTES[spec.dtype], spec.name))


def write_header(specs: Sequence[FeatureSpec]) -> bytearray:
    """Length and JSON of a file with the tensors `specs` in that order; a multiple of 64 bytes. Raises `UserError`."""
    if not 1 <= len(specs) <= TENSORS_MAX or len({spec.name for spec in specs}) != len(specs):
        raise UserError(f"a sample has 1 to {TENSORS_MAX} tensors with different names, not {len(specs)}")
    entries: dict[str, object] = {}
    position = 0
    for spec in specs:
        if not _NAME.fullmatch(spec.name) or spec.dtype not in CODES or len(spec.shape) > RANK_MAX:
            raise UserError(f"feature {spec.name[:80]!r} ({spec.dtype}, rank {len(spec.shape)}) cannot be stored")
        end = position + spec.nbytes()
        entries[spec.name] = {"dtype": CODES[spec.dtype], "shape": spec.shape, "data_offsets": (position, end)}
        position = end
    text = msgspec.json.encode(entries)
    padded = text.ljust(-(-(len(text) + 8) // ALIGNMENT) * ALIGNMENT - 8, b" ")
    return bytearray(len(padded).to_bytes(8, "little") + padded)


def parse(file: memoryview) -> list[Placed]:
    """Names, dtypes, shapes and places of the tensors in a safetensors `file`, by place. Raises `Corrupt`."""
    if len(file) < 8:
        raise Corrupt("the payload is shorter than a safetensors header")
    length = int.from_bytes(file[:8], "little")
    if length > HEADER_BYTES_MAX or 8 + length > len(file):
        raise Corrupt(f"the safetensors header claims {length} bytes")
    try:
        entries = msgspec.json.decode(file[8 : 8 + length], type=dict[str, _Entry])
    except UNDECODABLE as error:
        raise Corrupt(f"the safetensors header is not valid: {error}") from error
    if not 1 <= len(entries) <= TENSORS_MAX:
        raise Corrupt(f"the safetensors header names {len(entries)} tensors")
    placed = sorted((_place(name, entry, 8 + length) for name, entry in entries.items()), key=_by_place)
    position = 8 + length
    for item in placed:
        if item.start != position:
            raise Corrupt(f"tensor {item.spec.name} begins at {item.start}, expected {position}")
        position += item.spec.nbytes()
    if position != len(file):
        raise Corrupt(f"the tensors end at {position} of {len(file)} bytes")
    return placed


def _place(name: str, entry: _Entry, data_start: int) -> Placed:
    dtype = _DTYPES.get(entry.dtype)
    if not _NAME.fullmatch(name) or dtype is None or len(entry.shape) > RANK_MAX:
        raise Corrupt(f"tensor {name[:80]!r} has an unknown dtype {entry.dtype[:16]!r} or an impossible name or rank")
    elements = 1
    for size in entry.shape:
        elements *= size
        if size < 0 or elements > ELEMENTS_MAX:
            raise Corrupt(f"tensor {name} has an impossible shape")
    spec = FeatureSpec(name=name, shape=tuple(entry.shape), dtype=dtype)
    start, end = entry.data_offsets
    if start < 0 or end - start != spec.nbytes():
        raise Corrupt(f"tensor {name} has {end - start} bytes, its shape needs {spec.nbytes()}")
    return Placed(spec, data_start + start)


def _by_place(item: Placed) -> tuple[int, int]:
    # An empty tensor shares its start with its successor and comes first.
    return item.start, item.spec.nbytes()
