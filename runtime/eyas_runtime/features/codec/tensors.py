"""Tensors as byte views and byte views as tensors, without copies on the CPU."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, cast

import torch

from eyas_contract.errors import Corrupt, UserError
from eyas_contract.refs import FeatureSpec, SampleRef
from eyas_runtime.digests import Buffer
from eyas_runtime.features.codec import header, layout
from eyas_runtime.features.codec.header import Identity

Tensors = Mapping[str, torch.Tensor]
OwnedTensors = dict[str, torch.Tensor]

DTYPES: Final[dict[str, torch.dtype]] = {
    "float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
    "int64": torch.int64, "int32": torch.int32, "int16": torch.int16, "int8": torch.int8, "uint8": torch.uint8,
    "bool": torch.bool,
}  # fmt: skip
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A blob as the parts whose concatenation it is; the parts view the tensors' own memory where they can."""

    head: list[memoryview]
    """Header of the blob."""
    payload: list[memoryview]
    """The safetensors file."""
    length: int
    specs: tuple[FeatureSpec, ...]
    """By name."""

    @property
    def parts(self) -> list[memoryview]:
        """All parts in order."""
        return [*self.head, *self.payload]


def spec_of(name: str, tensor: torch.Tensor) -> FeatureSpec:
    """Name, shape and dtype of `tensor`. Raises `UserError` for a dtype that cannot be stored."""
    dtype = _NAMES.get(tensor.dtype)
    if dtype is None:
        raise UserError(f"feature {name[:80]!r} has dtype {tensor.dtype}; store one of {', '.join(DTYPES)}")
    return FeatureSpec(name=name, shape=tuple(tensor.shape), dtype=dtype)


def encode(tensors: Tensors, identity: Identity) -> Encoded:
    """`tensors` of any device and layout as one blob of `identity`. Raises `UserError`.

    The tensors must not change while the parts are in use.
    """
    if not tensors:
        raise UserError(f"sample {identity.sample_id} has no tensors")
    specs = layout.order([spec_of(name, tensor) for name, tensor in tensors.items()])
    payload = [memoryview(layout.write_header(specs)), *(_bytes_of(tensors[spec.name]) for spec in specs)]
    payload = [part for part in payload if len(part)]
    payload_length = sum(map(len, payload))
    return Encoded(
        head=[memoryview(header.pack(identity, payload_length))],
        payload=payload,
        length=header.BYTES + payload_length,
        specs=tuple(sorted(specs, key=lambda spec: spec.name)),
    )


def decode(
    blob: memoryview,
    ref: SampleRef,
    identity: Identity,
    names: Collection[str] | None = None,
    *,
    any_use: bool = False,
) -> OwnedTensors:
    """The tensors of `blob`, or those of `names`: views of its memory, which they keep alive.

    The digest must have been checked. Raises `Corrupt` if header, lengths or tensors are not those of `ref`.
    """
    payload = header.check(blob, identity, any_use=any_use)
    placed = layout.parse(payload)
    found = {item.spec.name: item.spec for item in placed}
    _check_specs(found, ref)
    return {item.spec.name: _tensor_at(payload, item) for item in placed if names is None or item.spec.name in names}


def _check_specs(found: Mapping[str, FeatureSpec], ref: SampleRef) -> None:
    expected = {spec.name: spec for spec in ref.feature_specs}
    missing = [name for name, spec in expected.items() if spec.required and name not in found]
    foreign = [name for name in found if name not in expected]
    if missing or foreign:
        raise Corrupt(f"{ref.sample_id}: tensors missing {missing[:8]}, not in the ref {foreign[:8]}")
    for name, spec in found.items():
        wanted = expected[name]
        if (spec.dtype, spec.shape) != (wanted.dtype, wanted.shape):
            raise Corrupt(
                f"{ref.sample_id}: {name} is {spec.dtype}{list(spec.shape)}, the ref says "
                f"{wanted.dtype}{list(wanted.shape)}"
            )


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
    return memoryview(cast(Buffer, flat.numpy()))


def _tensor_at(payload: memoryview, item: layout.Placed) -> torch.Tensor:
    spec = item.spec
    if spec.nbytes() == 0:
        return torch.empty(spec.shape, dtype=DTYPES[spec.dtype])
    count = spec.nbytes() // DTYPES[spec.dtype].itemsize
    return torch.frombuffer(payload, dtype=DTYPES[spec.dtype], count=count, offset=item.start).reshape(spec.shape)
