"""Who calls: one bearer token per role, from files, two valid at a time, compared in constant time.

A presented token is compared with every known token, whether or not one has matched, so that the time taken says
nothing. Files are read again when they change (a rotated Secret is a new file behind the same name); a file that turns
bad while the service runs keeps its old tokens, because a slip in a rotation must not stop a job.
"""

import hmac
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from eyas_contract import env
from eyas_contract.errors import UserError
from eyas_contract.tokens import TOKEN_LENGTH_MAX, read_tokens
from eyas_contract.wire import RoleName

LOOK_SECONDS: Final = 1.0
"""How often the files are looked at, at most."""
TOKEN_FILES: Final[Mapping[RoleName, str]] = {
    "producer": env.TOKEN_PRODUCER,
    "consumer": env.TOKEN_CONSUMER,
    "reader": env.TOKEN_READER,
    "store": env.TOKEN_STORE,
}
_log: Final = logging.getLogger(__name__)
_SCHEME: Final = "Bearer "


class Tokens:
    """The tokens of all roles in `directory`. Raises `UserError` when one is missing, bad, or shared by two roles."""

    def __init__(self, directory: Path, *, now: float) -> None:
        self._directory = directory
        self._looked_at = now
        self._stamps = {role: self._stamp(role) for role in TOKEN_FILES}
        self._tokens = {role: self._read(role) for role in TOKEN_FILES}
        _check_distinct(self._tokens)

    def roles(self, authorization: str, *, now: float) -> frozenset[RoleName]:
        """The roles whose token the `Authorization` header carries; empty when it carries none. `now` is monotonic."""
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._look()
        token = authorization.removeprefix(_SCHEME) if authorization.startswith(_SCHEME) else ""
        presented = token.encode("utf-8", "surrogatepass")[: TOKEN_LENGTH_MAX + 1]
        found: set[RoleName] = set()
        for role, tokens in self._tokens.items():
            for known in tokens:
                if hmac.compare_digest(presented, known):
                    found.add(role)
        return frozenset(found)

    def _path(self, role: RoleName) -> Path:
        return self._directory / TOKEN_FILES[role]

    def _stamp(self, role: RoleName) -> tuple[int, int, int]:
        try:
            found = os.stat(self._path(role))
        except OSError:
            return (0, 0, 0)
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _read(self, role: RoleName) -> tuple[bytes, ...]:
        return tuple(token.encode("ascii") for token in read_tokens(self._path(role)))

    def _look(self) -> None:
        for role in TOKEN_FILES:
            # The stamp is taken before the read: a file that changes in between is read again next time.
            stamp = self._stamp(role)
            if stamp == self._stamps[role]:
                continue
            try:
                fresh = {**self._tokens, role: self._read(role)}
                _check_distinct(fresh)
            except UserError as error:
                _log.warning("the old tokens of role %s stay valid: %s", role, error)
                continue
            self._tokens, self._stamps = fresh, {**self._stamps, role: stamp}
            _log.info("the tokens of role %s were read again", role)


def _check_distinct(tokens: Mapping[RoleName, tuple[bytes, ...]]) -> None:
    """Two roles with one token would give each the other's rights."""
    seen: dict[bytes, RoleName] = {}
    for role, values in tokens.items():
        for value in values:
            if seen.setdefault(value, role) != role:
                raise UserError(f"the roles {seen[value]} and {role} have the same token; each needs its own")
