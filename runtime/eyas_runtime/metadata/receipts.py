"""Receipts of checkpoint commits: proof, beside the checkpoint itself, that this job's service recorded it.

A receipt lets a checkpoint be believed after the metadata volume is lost. It is an HMAC with the job's own random key,
so nobody but the service can make one, and it names everything that tells two checkpoints apart. Pure.
"""

import hashlib
import hmac
from typing import Final

import msgspec

from eyas_contract.errors import UserError
from eyas_contract.ids import Incarnation, JobUid

KEY_BYTES_MIN: Final = 16
_SCHEME: Final = "hmac-sha256:"
_DOMAIN: Final = b"eyas checkpoint receipt 1\n"


class ReceiptFacts(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a receipt vouches for."""

    job_uid: JobUid
    store_epoch: int
    attempt: int
    incarnation: Incarnation
    step: int
    manifest_digest: str


def receipt(key: bytes, facts: ReceiptFacts) -> str:
    """The receipt for `facts`, always the same text for the same facts. Raises `UserError` for too short a key."""
    if len(key) < KEY_BYTES_MIN:
        raise UserError(f"the receipt key has {len(key)} bytes; it needs at least {KEY_BYTES_MIN}")
    # A JSON array with every string quoted is unambiguous: no two facts share an encoding.
    return _SCHEME + hmac.new(key, _DOMAIN + msgspec.json.encode(facts), hashlib.sha256).hexdigest()


def is_valid(key: bytes, facts: ReceiptFacts, presented: str) -> bool:
    """Whether `presented` is the receipt for `facts`, compared in constant time."""
    return hmac.compare_digest(receipt(key, facts).encode(), presented.encode("utf-8", "surrogatepass"))
