"""The operator's key, mounted as files: `current`, and after a rotation also `previous`. Never read through the API.

Files are read at every use: the kubelet replaces them in a running pod.
"""

from pathlib import Path
from typing import Final

from eyas_contract.errors import UserError
from eyas_operator.tokens import derive

CURRENT: Final = "current"
PREVIOUS: Final = "previous"
KEY_BYTES_MIN: Final = 32
_KEY_BYTES_MAX: Final = 4096


class OperatorKeys:
    """One or two keys in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def tokens(self, purpose: str, job_uid: str) -> tuple[str, ...]:
        """The job's tokens for `purpose`, by the current key and then by the previous one, if there is one.

        Raises `UserError` when there is no usable current key.
        """
        keys = [key for key in (self._read(CURRENT), self._read(PREVIOUS)) if key]
        if not keys or not self._read(CURRENT):
            raise UserError(f"{self._folder / CURRENT} must hold the operator's key, {KEY_BYTES_MIN} bytes or more")
        return tuple(dict.fromkeys(derive(key, purpose, job_uid) for key in keys))

    def _read(self, name: str) -> bytes:
        try:
            with (self._folder / name).open("rb") as file:
                key = file.read(_KEY_BYTES_MAX).strip()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise UserError(f"cannot read the operator's key {self._folder / name}: {error.strerror}") from error
        if key and len(key) < KEY_BYTES_MIN:
            raise UserError(f"{self._folder / name} must hold {KEY_BYTES_MIN} bytes or more")
        return key
