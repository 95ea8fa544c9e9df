"""Records of the data path: pointers to tensors, never tensors.

Immutable msgspec structs with the field names of SpecForge's contract, so that its users find what they know.
`schema_version` is checked by whoever reads a ref.
"""

from typing import Final, Literal

import msgspec

from eyas_contract.ids import ObjectKey, SampleId

SCHEMA_VERSION: Final = 1
TargetRepr = Literal["logits", "pruned_logits", "hidden_state"]
DTYPE_BYTES: Final = {
    "float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint8": 1, "bool": 1,
}  # fmt: skip
"""Every dtype that a feature may have, with the bytes of one element."""


class FeatureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name, shape and dtype of one tensor of a sample."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    required: bool = True
    target_repr: TargetRepr | None = None

    def nbytes(self) -> int:
        """Bytes of the tensor; an unknown dtype counts four bytes an element, as in SpecForge."""
        count = 1
        for size in self.shape:
            count *= size
        return count * DTYPE_BYTES.get(self.dtype, 4)


class SampleRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pointer to exactly one training sample: where its blob is and what its bytes must be."""

    sample_id: SampleId
    sequence: int
    key: ObjectKey
    generation: int
    digest: str
    """`<algorithm>:<hex>` of the whole blob, header included; what a reader must find (blake3 or xxh3-128)."""
    payload_digest: str
    """The same over the tensor payload alone: equal for two captures of one sample that gave equal bits.

    Always xxh3-128: it shows drift between honest captures; what resists an attacker is `digest`."""
    length: int
    """Bytes of the blob."""
    num_tokens: int
    """True token count L of the sample, padding excluded."""
    num_supervised: int
    """Positions with loss_mask 1, the last position excluded."""
    feature_specs: tuple[FeatureSpec, ...]
    strategy: str = "eagle3"
    schema_version: int = SCHEMA_VERSION
    fingerprint: str = ""
    """Digest of the capture fingerprint (device model, ISA, libraries, engine options, threads)."""


class FeatureHandle(msgspec.Struct, frozen=True):
    """Lease returned by a read; `release` takes it."""

    sample_id: SampleId
    generation: int
    lease_token: str


class PromptTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One prompt to capture: where its text is, and the shape that its group needs."""

    sample_id: SampleId
    sequence: int
    prompt_index: int
    """Index into the prepared prompt set, 0..N-1."""
    file_index: int
    """Which of `data.prompts`."""
    offset: int
    """Byte offset of the line in that file (features: the index of the feature file)."""
    num_tokens: int
    """Token count found by `prepare`; another count at capture means the inputs changed."""
    capture: bool
    """False: the member only shapes the batch (it is resident, released or dead)."""
    key: ObjectKey | None = None
    """The key this lease may write for the sample; None when `capture` is False."""
    generation: int = 0
