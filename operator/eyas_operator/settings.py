"""The operator's own settings: frozen values, read from the environment at one place.

Nothing here changes what a job computes; only where images come from and how often the operator looks.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from eyas_contract.errors import UserError

ENVIRONMENT_PREFIX = "EYAS_OPERATOR_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the operator works."""

    runtime_image: str = "eyas-runtime:0.1.0"
    """Image of the torch-free roles: metadata, store master, store nodes."""
    train_image: str = "eyas-train:0.1.0"
    """Image of producers and consumers."""
    version: str = metadata.version("eyas")
    """Version of this operator, as the labels of what it makes say it."""
    resync_seconds: float = 5.0
    """A job is looked at again after this time at most, while it runs."""
    progress_seconds: float = 10.0
    """Fast numbers reach the status at most so often."""
    conflict_seconds: float = 0.2
    """Pause before a pass that follows an action or a conflict."""
    refused_seconds: float = 10.0
    """Pause before what the cluster refused is tried again."""
    strike_decay_seconds: float = 3600.0
    """A node's strikes are halved each time this passes."""
    node_strikes_max: int = 2
    """From so many strikes on, a job's new pods avoid a node."""
    stop_margin_seconds: float = 30.0
    """Time beyond its grace period after which a pod that is being deleted is no longer waited for."""


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Settings from `EYAS_OPERATOR_<FIELD>` variables. Raises `UserError` naming the variable."""
    values: dict[str, str | float | int] = {}
    for name, kind in Settings.__annotations__.items():
        key = ENVIRONMENT_PREFIX + name.upper()
        if key in environment:
            try:
                values[name] = kind(environment[key])
            except ValueError as error:
                raise UserError(f"{key}: must be a {kind.__name__}, not {environment[key][:80]!r}") from error
    return Settings(**values)  # type: ignore[arg-type]


def read_settings() -> Settings:
    """Settings of this process."""
    return settings_from(os.environ)
