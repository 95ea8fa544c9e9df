"""Identifiers and their shapes. Everything that meets a path or a key is validated here first.

A sequence number is one use of a prompt; its sample id is derived from it, so a retry has the same name by
construction. Object keys are minted by the metadata service alone, carry the store epoch, the generation and 128
random bits, and are never reused (Mooncake answers 0 to a put on an existing key and keeps the old bytes).
"""

import re
from typing import Final, NewType

from eyas_contract.errors import UserError

JobUid = NewType("JobUid", str)
SampleId = NewType("SampleId", str)
ObjectKey = NewType("ObjectKey", str)
Incarnation = NewType("Incarnation", str)
"""Random nonce of one life of the consumer gang; 32 hex digits."""
LeaseToken = NewType("LeaseToken", str)
"""Random fencing token of one capture lease; 32 hex digits."""

_SAMPLE_ID: Final = re.compile(r"s-[0-9]{12}")
_OBJECT_KEY: Final = re.compile(r"eyas\.([a-z0-9]{8,32})\.e([0-9]{1,9})\.g([0-9]{1,15})\.([0-9a-f]{32})")
_JOB_UID: Final = re.compile(r"[a-z0-9]{8,32}")
SEQUENCE_MAX: Final = 10**12 - 1


def sample_id(sequence: int) -> SampleId:
    """The sample id of sequence number `sequence` (0-based), for example `s-000000000042`."""
    if not 0 <= sequence <= SEQUENCE_MAX:
        raise ValueError(f"sequence number {sequence} is outside 0..{SEQUENCE_MAX}")
    return SampleId(f"s-{sequence:012d}")


def sequence_of(sample: str) -> int:
    """Inverse of `sample_id`. Raises `UserError` for anything that we did not make, before it can meet a path."""
    if not _SAMPLE_ID.fullmatch(sample):
        raise UserError(f"sample id {sample[:80]!r} is not of the form s-<12 digits>")
    return int(sample[2:])


def object_key(job_uid: JobUid, store_epoch: int, generation: int, random_hex: str) -> ObjectKey:
    """Build an object key from its parts; `random_hex` is 32 hex digits."""
    return valid_key(f"eyas.{job_uid}.e{store_epoch}.g{generation}.{random_hex}")


def valid_key(key: str) -> ObjectKey:
    """`key`, if it is one of ours; raises `UserError` otherwise. A valid key is also a safe file name."""
    if not _OBJECT_KEY.fullmatch(key):
        raise UserError(f"object key {key[:80]!r} is not one that Eyas mints")
    return ObjectKey(key)


def key_prefix(job_uid: JobUid) -> str:
    """What all keys of one job begin with."""
    return f"eyas.{job_uid}."


def store_epoch_of(key: str) -> int:
    """The store epoch inside `key`. Raises `UserError` if the key is not ours."""
    match = _OBJECT_KEY.fullmatch(key)
    if match is None:
        raise UserError(f"object key {key[:80]!r} is not one that Eyas mints")
    return int(match[2])


def generation_of(key: str) -> int:
    """The generation inside `key`. Raises `UserError` if the key is not ours."""
    match = _OBJECT_KEY.fullmatch(key)
    if match is None:
        raise UserError(f"object key {key[:80]!r} is not one that Eyas mints")
    return int(match[3])


def valid_job_uid(uid: str) -> JobUid:
    """`uid`, if it is 8 to 32 lower-case letters or digits; raises `UserError` otherwise."""
    if not _JOB_UID.fullmatch(uid):
        raise UserError(f"job UID {uid[:80]!r} must be 8 to 32 lower-case letters or digits")
    return JobUid(uid)
