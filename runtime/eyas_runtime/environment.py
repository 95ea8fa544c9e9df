"""Variables of the environment, read with an error that names them. Pure: the environment is an argument."""

from collections.abc import Mapping
from pathlib import Path

from eyas_contract.errors import UserError


def required(values: Mapping[str, str], name: str) -> str:
    """The variable `name`. Raises `UserError` when it is absent or empty."""
    value = values.get(name)
    if not value:
        raise UserError(f"{name} is not set: this process is started by its pod's supervisor")
    return value


def required_path(values: Mapping[str, str], name: str) -> Path:
    """The path in the variable `name`. Raises `UserError` when it is absent or empty."""
    return Path(required(values, name))


def whole_number(values: Mapping[str, str], name: str, default: int | None = None) -> int:
    """The number in the variable `name`; `default` when it is absent or empty. Raises `UserError`."""
    text = values.get(name) or (required(values, name) if default is None else str(default))
    if not text.isascii() or not text.isdecimal():
        raise UserError(f"{name} is {text[:40]!r}; it must be a whole number of at least 0")
    return int(text)
