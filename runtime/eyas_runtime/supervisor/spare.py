"""A process in waiting: `python -m eyas_runtime.supervisor.spare MODULE`.

It imports what the entrypoint `MODULE` will need, which takes seconds, and then waits on its standard input for one
line of JSON with the last of its environment. With that it becomes a child like any other. An end of the input without
a line means that it is not needed any more. Nothing but imports happens before: no file of the job is read.
"""

import importlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Final, NoReturn

from eyas_contract.errors import UserError
from eyas_runtime.process import die_with_parent, run_role

HEAVY: Final[Mapping[str, tuple[str, ...]]] = {
    "eyas_runtime.train.consume": ("eyas_runtime.train.draft_engine", "torch.utils.tensorboard"),
    "eyas_runtime.capture.produce": ("eyas_runtime.capture.build", "transformers"),
}
"""Entrypoints that are worth a spare, and the modules that make them slow to start."""


def main() -> NoReturn:
    """Prepare, wait, become the entrypoint."""
    die_with_parent()
    module = sys.argv[1] if len(sys.argv) == 2 else ""
    if module not in HEAVY:
        raise UserError(f"{module[:80]!r} is no entrypoint that has spares")
    entrypoint = importlib.import_module(module)
    for name in HEAVY[module]:
        importlib.import_module(name)
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(0)
    os.environ.update(json.loads(line))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.argv[:] = [module]
    run_role(entrypoint.main)


if __name__ == "__main__":
    run_role(main)
