"""Notices that somebody edits the prompts in mid-run.

Digests are compared at every start; between starts a look at size and modification time before each group is enough to
know when to compare again. The look is a hint, the digest decides.
"""

import os

from eyas_contract.config import JobConfig
from eyas_contract.errors import Transient, UserError
from eyas_contract.wire import Inputs
from eyas_runtime.inputs import check_inputs, digest_inputs

_Stamp = tuple[int, int, int]


class InputsWatch:
    """Compares the inputs again whenever a prompt file looks different."""

    def __init__(self, config: JobConfig, recorded: Inputs) -> None:
        self._config = config
        self._recorded = recorded
        self._stamps = self._look()

    def check(self) -> None:
        """Raise `UserError` saying what changed; cheap when nothing did."""
        stamps = self._look()
        if stamps != self._stamps:
            check_inputs(self._recorded, digest_inputs(self._config))
            self._stamps = stamps

    def _look(self) -> tuple[_Stamp, ...]:
        return tuple(_stamp(path) for path in self._config.data.prompts)


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path} is gone: data.prompts changed since this job was prepared") from error
    except OSError as error:
        raise Transient(f"cannot read {path}: {error.strerror}", retry_after_seconds=1.0) from error
    return found.st_ino, found.st_size, found.st_mtime_ns
