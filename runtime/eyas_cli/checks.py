"""Checks of any `doctor`: each one line, ok or not, with what to do about it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from eyas_contract.exits import Exit

Level = Literal["ok", "warning", "error"]
_SIGNS: Final = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


@dataclass(frozen=True, slots=True)
class Check:
    """Outcome of one check."""

    name: str
    level: Level
    text: str


def tell(checks: Sequence[Check], *, as_json: bool) -> int:
    """Print every check; the exit code is 78 when one of them is an error."""
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        width = max((len(check.name) for check in checks), default=0)
        for check in checks:
            print(f"{_SIGNS[check.level]} {check.name:<{width}}  {check.text}")
    return Exit.CONFIG if any(check.level == "error" for check in checks) else Exit.DONE
