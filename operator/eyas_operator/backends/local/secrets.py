"""Secrets as files of this user alone: `DIR/secrets/<name>/<key>`, mode 0600.

Minted values are 32 random bytes in hexadecimal, created once, whole or not at all, and never written again. Derived
values come from a key of this run's own, so that every pass writes the same bytes.
"""

import secrets
from pathlib import Path
from typing import Final

from eyas_operator.backends.local.folder import create_file, replace_file
from eyas_operator.cluster import SecretShape
from eyas_operator.tokens import derive

OPERATOR_KEY_FILE: Final = "operator.key"
_BYTES: Final = 32
_MODE: Final = 0o600


class Secrets:
    """The secrets of one run."""

    def __init__(self, folder: Path, job_uid: str) -> None:
        self._folder = folder
        self._job_uid = job_uid

    def ensure(self, shape: SecretShape) -> None:
        """Create what is missing of the minted keys; write the derived ones if they differ."""
        folder = self._folder / str(shape.manifest["metadata"]["name"])
        folder.mkdir(mode=0o700, exist_ok=True)
        for key in shape.minted:
            if not (folder / key).exists():
                create_file(folder / key, _mint(), mode=_MODE)
        for key in shape.derived:
            value = self._derive(key)
            if not (folder / key).exists() or (folder / key).read_bytes() != value:
                replace_file(folder / key, value, mode=_MODE)

    def path(self, secret: str, key: str) -> Path:
        """File of one value."""
        return self._folder / secret / key

    def _derive(self, key: str) -> bytes:
        file = self._folder / OPERATOR_KEY_FILE
        if not file.exists():
            create_file(file, _mint(), mode=_MODE)
        return derive(file.read_bytes(), key, self._job_uid).encode() + b"\n"


def _mint() -> bytes:
    return secrets.token_hex(_BYTES).encode() + b"\n"
