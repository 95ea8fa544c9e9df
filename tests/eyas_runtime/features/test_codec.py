"""The codec: any tensors come back bit for bit, any other bytes are refused before a tensor exists."""

import json
import math
import struct

import msgspec
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas_contract.errors import Corrupt, UserError
from eyas_contract.ids import JobUid, sample_id
from eyas_contract.refs import DTYPE_BYTES, FeatureSpec, SampleRef
from eyas_runtime.features.codec import header, layout, tensors
from eyas_runtime.features.codec.header import Identity
from support.keys import bits_of, new_key

JOB = JobUid("job00000001")
IDENTITY = Identity(job_uid=JOB, sample_id=sample_id(7), sequence=7, generation=3)

SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
NAMES = st.text("abcdefXYZ019_.-", min_size=1, max_size=12)


@st.composite
def named_tensors(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Tensors of any storable dtype and shape with arbitrary bits, contiguous or not."""
    made = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=6, unique=True)):
        dtype = tensors.DTYPES[draw(st.sampled_from(sorted(DTYPE_BYTES)))]
        shape = draw(SHAPES)
        size = math.prod(shape) * dtype.itemsize
        raw = bytearray(draw(st.binary(min_size=size, max_size=size)))
        if dtype == torch.bool:
            raw = bytearray(byte & 1 for byte in raw)
        flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        tensor = flat.reshape(shape)
        made[name] = tensor.transpose(0, -1) if tensor.dim() > 1 and draw(st.booleans()) else tensor
    return made


def blob_of(encoded: tensors.Encoded) -> bytearray:
    return bytearray(b"".join(encoded.parts))


def ref_of(encoded: tensors.Encoded) -> SampleRef:
    return SampleRef(
        sample_id=IDENTITY.sample_id, sequence=7, key=new_key(JOB, generation=3), generation=3, digest="",
        payload_digest="", length=encoded.length, num_tokens=1, num_supervised=1, feature_specs=encoded.specs,
    )  # fmt: skip


@settings(deadline=None)
@given(named_tensors())
def test_any_tensors_come_back_bit_for_bit(sample: dict[str, torch.Tensor]) -> None:
    encoded = tensors.encode(sample, IDENTITY)
    blob = blob_of(encoded)
    assert len(blob) == encoded.length
    found = tensors.decode(memoryview(blob), ref_of(encoded), IDENTITY)
    assert found.keys() == sample.keys()
    for name, tensor in sample.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert bits_of(found[name]) == bits_of(tensor)


@settings(deadline=None)
@given(named_tensors())
def test_the_payload_is_a_safetensors_file_that_the_library_reads(sample: dict[str, torch.Tensor]) -> None:
    payload = bytes(blob_of(tensors.encode(sample, IDENTITY))[header.BYTES :])
    found = safetensors.torch.load(payload)
    assert {name: bits_of(tensor) for name, tensor in found.items()} == {n: bits_of(t) for n, t in sample.items()}


@settings(deadline=None)
@given(named_tensors())
def test_what_the_library_writes_is_understood(sample: dict[str, torch.Tensor]) -> None:
    written = safetensors.torch.save({name: tensor.contiguous() for name, tensor in sample.items()})
    placed = layout.parse(memoryview(written))
    assert {(item.spec.name, item.spec.dtype, item.spec.shape) for item in placed} == {
        (name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in sample.items()
    }


def test_equal_tensors_give_equal_bytes_in_whatever_order_they_come() -> None:
    sample = {"b": torch.ones(3), "a": torch.zeros(2, dtype=torch.int64), "c": torch.ones(1, dtype=torch.bool)}
    reverse = dict(reversed(sample.items()))
    assert blob_of(tensors.encode(sample, IDENTITY)) == blob_of(tensors.encode(reverse, IDENTITY))


def test_tensor_data_is_aligned_for_any_kernel() -> None:
    encoded = tensors.encode({"hidden": torch.ones(3, 5)}, IDENTITY)
    [placed] = layout.parse(memoryview(blob_of(encoded))[header.BYTES :])
    assert (header.BYTES + placed.start) % 64 == 0


def test_large_tensors_are_encoded_and_decoded_in_place() -> None:
    tensor = torch.arange(1000)
    encoded = tensors.encode({"a": tensor}, IDENTITY)
    tensor[0] = 99
    blob = blob_of(encoded)
    found = tensors.decode(memoryview(blob), ref_of(encoded), IDENTITY)["a"]
    assert found[0] == 99
    found[1] = 77
    assert tensors.decode(memoryview(blob), ref_of(encoded), IDENTITY)["a"][1] == 77


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_changed_byte_is_worse_than_corrupt_or_another_value(data: st.DataObject) -> None:
    # The digest is checked before; this is the second line: a decoder that trusts nothing it reads.
    encoded = tensors.encode({"a": torch.arange(4), "b": torch.ones(2, 3)}, IDENTITY)
    blob = blob_of(encoded)
    position = data.draw(st.integers(0, len(blob) - 1))
    blob[position] ^= data.draw(st.integers(1, 255))
    try:
        found = tensors.decode(memoryview(blob), ref_of(encoded), IDENTITY)
    except Corrupt:
        return
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {"a": (4,), "b": (2, 3)}


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400))
def test_noise_is_corrupt(noise: bytes) -> None:
    encoded = tensors.encode({"a": torch.arange(4)}, IDENTITY)
    with pytest.raises(Corrupt):
        tensors.decode(memoryview(noise), ref_of(encoded), IDENTITY)
    with pytest.raises(Corrupt):
        layout.parse(memoryview(noise))


@pytest.mark.parametrize(
    ("field", "value"),
    [("job_uid", "job00000002"), ("sample_id", sample_id(8)), ("sequence", 8), ("generation", 4)],
)
def test_a_blob_of_another_identity_is_corrupt(field: str, value: object) -> None:
    blob = header.pack(IDENTITY, 10) + bytes(10)
    assert bytes(header.check(memoryview(blob), IDENTITY)) == bytes(10)
    changed = Identity(**{**{name: getattr(IDENTITY, name) for name in Identity.__slots__}, field: value})
    with pytest.raises(Corrupt):
        header.check(memoryview(blob), changed)


def test_an_identity_that_contradicts_itself_is_never_written() -> None:
    with pytest.raises(UserError):
        header.pack(Identity(job_uid=JOB, sample_id=sample_id(7), sequence=8, generation=1), 10)
    with pytest.raises(UserError):
        header.pack(Identity(job_uid=JobUid("../x"), sample_id=sample_id(7), sequence=7, generation=1), 10)


def file_with(head: object, data: bytes = b"", *, length: int | None = None) -> memoryview:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return memoryview(struct.pack("<Q", len(text) if length is None else length) + text + data)


def entry(start: int, end: int, *, dtype: str = "U8", shape: list[int] | None = None) -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


HOSTILE = {
    "header longer than the file": file_with({"a": entry(0, 4)}, bytes(4), length=10_000),
    "header of four exabytes": file_with({"a": entry(0, 4)}, bytes(4), length=1 << 62),
    "no tensors": file_with({}),
    "not JSON": file_with(b"{'a': 1}"),
    "a list": file_with([1, 2]),
    "deeply nested": file_with(b"[" * 5000),
    "hole at the start": file_with({"a": entry(2, 4)}, bytes(4)),
    "hole between": file_with({"a": entry(0, 1), "b": entry(2, 4)}, bytes(4)),
    "overlap": file_with({"a": entry(0, 3), "b": entry(2, 4)}, bytes(4)),
    "two on one place": file_with({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)),
    "end beyond the data": file_with({"a": entry(0, 8)}, bytes(4)),
    "data beyond the end": file_with({"a": entry(0, 4)}, bytes(8)),
    "negative offset": file_with({"a": entry(-4, 0)}, bytes(4)),
    "negative size": file_with({"a": entry(0, 4, shape=[-2, -2])}, bytes(4)),
    "size that overflows": file_with({"a": entry(0, 4, shape=[1 << 40, 1 << 40, 0, 4])}, bytes(4)),
    "shape that needs more": file_with({"a": entry(0, 4, shape=[5])}, bytes(4)),
    "unknown dtype": file_with({"a": entry(0, 4, dtype="F8_E4M3", shape=[4])}, bytes(4)),
    "path as name": file_with({"../../a": entry(0, 4)}, bytes(4)),
    "endless name": file_with({"a" * 1000: entry(0, 4)}, bytes(4)),
    "rank 9": file_with({"a": entry(0, 1, shape=[1] * 9)}, bytes(1)),
    "foreign field": file_with({"a": entry(0, 4) | {"pickle": "x"}}, bytes(4)),
    "metadata": file_with({"__metadata__": {"a": "b"}, "a": entry(0, 4)}, bytes(4)),
    "floats as offsets": file_with({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0.0, 4.0]}}, bytes(4)),
    "300 tensors": file_with({f"t{n}": entry(n, n + 1) for n in range(300)}, bytes(300)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_safetensors_header_is_corrupt(case: str) -> None:
    with pytest.raises(Corrupt):
        layout.parse(HOSTILE[case])


def test_a_well_formed_file_is_not_refused() -> None:
    [one, two] = layout.parse(file_with({"b": entry(4, 6, dtype="I8"), "a": entry(0, 4)}, bytes(6)))
    assert (one.spec.name, two.spec.name) == ("a", "b")


def test_optional_tensors_may_be_absent_and_required_ones_may_not() -> None:
    encoded = tensors.encode({"a": torch.ones(2)}, IDENTITY)
    ref = ref_of(encoded)
    optional = FeatureSpec(name="b", shape=(2,), dtype="float32", required=False)
    blob = memoryview(blob_of(encoded))
    assert set(
        tensors.decode(blob, msgspec.structs.replace(ref, feature_specs=(*ref.feature_specs, optional)), IDENTITY)
    ) == {"a"}
    required = msgspec.structs.replace(optional, required=True)
    with pytest.raises(Corrupt):
        tensors.decode(blob, msgspec.structs.replace(ref, feature_specs=(*ref.feature_specs, required)), IDENTITY)


def test_a_gradient_and_a_foreign_layout_are_stored_as_values() -> None:
    source = torch.ones(4, 4, requires_grad=True)
    encoded = tensors.encode({"a": source.T[1:, ::2]}, IDENTITY)
    found = tensors.decode(memoryview(blob_of(encoded)), ref_of(encoded), IDENTITY)["a"]
    assert not found.requires_grad
    assert found.equal(source.detach().T[1:, ::2])
