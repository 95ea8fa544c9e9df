"""The header of a blob: whose features these are, so that bytes under the wrong key are never trained.

Fixed 128 bytes, little-endian: magic, schema, header length, payload length, sequence, generation, job UID, sample id,
zeros. The length is a multiple of 64, so tensor data in a page-aligned buffer stays aligned for any kernel.
"""

import struct
from dataclasses import dataclass
from typing import Final

from eyas_contract.errors import Corrupt, UserError
from eyas_contract.ids import JobUid, SampleId, sequence_of, valid_job_uid

MAGIC: Final = b"EYASBLOB"
SCHEMA: Final = 1
BYTES: Final = 128
USE_FIELDS: Final = -2
"""The last fields that `check` compares, sample and sequence, name one use of an object."""
_FORMAT: Final = struct.Struct("<8sHHIQQQ32s16s")
_ZEROS: Final = bytes(BYTES - _FORMAT.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which sample of which job, captured how often."""

    job_uid: JobUid
    sample_id: SampleId
    sequence: int
    generation: int


def pack(identity: Identity, payload_length: int) -> bytearray:
    """The header of a blob of `identity` with `payload_length` bytes behind it; writable, as transfers want it."""
    if sequence_of(identity.sample_id) != identity.sequence:
        raise UserError(f"sample id {identity.sample_id} does not belong to sequence number {identity.sequence}")
    fixed = _FORMAT.pack(
        MAGIC,
        SCHEMA,
        0,
        BYTES,
        payload_length,
        identity.sequence,
        identity.generation,
        valid_job_uid(identity.job_uid).encode("ascii"),
        identity.sample_id.encode("ascii"),
    )
    return bytearray(fixed + _ZEROS)


def check(blob: memoryview, identity: Identity, *, any_use: bool = False) -> memoryview:
    """The payload of `blob`, if its header is whole and names `identity`. Raises `Corrupt` naming the first field.

    `any_use`: an ingested object serves several sequence numbers and names the one it was ingested for; then job and
    generation identify it, and generations are never used twice.
    """
    if len(blob) < BYTES:
        raise Corrupt(f"a blob of {len(blob)} bytes has no header")
    magic, schema, _flags, header_length, payload_length, sequence, generation, job_uid, sample_id = (
        _FORMAT.unpack_from(blob)
    )
    found = (
        ("magic", magic, MAGIC),
        ("schema", schema, SCHEMA),
        ("header length", header_length, BYTES),
        ("payload length", payload_length, len(blob) - BYTES),
        ("job", job_uid.rstrip(b"\0"), identity.job_uid.encode("ascii")),
        ("generation", generation, identity.generation),
        ("sample", sample_id.rstrip(b"\0"), identity.sample_id.encode("ascii")),
        ("sequence", sequence, identity.sequence),
    )
    for name, is_, expected in found[:USE_FIELDS] if any_use else found:
        if is_ != expected:
            raise Corrupt(f"the blob's {name} is {is_!r}, expected {expected!r}")
    return blob[BYTES:]
