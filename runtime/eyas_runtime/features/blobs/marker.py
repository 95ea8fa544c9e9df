"""The marker file of a shared-directory store: proof that this is the store that was meant, and who may use it.

A directory answers no questions, so the owner's statement lies in it: schema, a random salt, and the HMAC of the store
token over that salt. A client with a wrong or missing token is refused before it touches an object; the file itself
gives the token away to nobody. This stops mistakes (another job's directory, an old Secret, an empty mount); a hostile
process with the same file rights is stopped by those rights and by digests, not by this file.
"""

import hashlib
import hmac
import secrets
from typing import Final

import msgspec

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Corrupt, Transient, Unauthenticated
from eyas_runtime import files

NAME: Final = "eyas-store.json"
SCHEMA: Final = 1
BYTES_MAX: Final = 4096
_CONTEXT: Final = b"eyas shared directory store v1\0"


class Marker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of the marker file."""

    schema_version: int = SCHEMA
    salt: str
    """32 random hex digits."""
    proof: str | None
    """HMAC-SHA256 of the token over the salt, hex; None for a store that asks for no token."""


def proof_of(token: bytes, salt: str) -> str:
    """What the marker of a store with `token` and `salt` holds."""
    return hmac.new(token, _CONTEXT + salt.encode("ascii"), hashlib.sha256).hexdigest()


def admit(marker: Marker, token: bytes | None) -> None:
    """Raise `Unauthenticated` unless `token` opens the store of `marker`.

    A client that holds a token is refused by an open store as well: it expects protection that is not there.
    """
    if marker.proof is None:
        if token is not None:
            raise Unauthenticated("this client has a store token, but the shared directory was made without one")
        return
    if token is None or not hmac.compare_digest(marker.proof, proof_of(token, marker.salt)):
        raise Unauthenticated("the store token is missing or wrong for this shared directory")


def read(dir_fd: int) -> Marker | None:
    """The marker in the directory `dir_fd`; None if there is none. Raises `Corrupt`, `OSError`."""
    try:
        raw = files.read_verified_at(dir_fd, NAME, bytes_max=BYTES_MAX)
    except FileNotFoundError:
        return None
    try:
        marker = msgspec.json.decode(raw, type=Marker)
    except UNDECODABLE as error:
        raise Corrupt(f"{NAME} is not a store marker: {error}") from error
    if marker.schema_version != SCHEMA:
        raise Corrupt(f"{NAME} has schema {marker.schema_version}; this version reads {SCHEMA}")
    return marker


def read_or_create(dir_fd: int, token: bytes | None, *, create: bool) -> Marker:
    """The marker, made with `token` if there is none and `create` says so. Raises `Transient` without one.

    Of several that create it at the same time one wins, and the others read the winner's.
    """
    marker = read(dir_fd)
    if marker is not None:
        return marker
    if not create:
        raise Transient(f"the store directory holds no {NAME}: is the volume mounted?", retry_after_seconds=1.0)
    salt = secrets.token_hex(16)
    fresh = Marker(salt=salt, proof=None if token is None else proof_of(token, salt))
    try:
        files.publish_bytes_at(dir_fd, NAME, msgspec.json.encode(fresh), replace=False)
    except FileExistsError:
        return read_or_create(dir_fd, token, create=False)
    return fresh
