"""Settings of the operator's process on a cluster, read from `EYAS_OPERATOR_*` variables at one place.

What a job's children are made from is in `eyas_operator.settings`, with the same prefix. No field is called `port` or
`service_...`: Kubernetes puts `EYAS_OPERATOR_PORT` and the like into pods beside a Service named `eyas-operator`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from eyas_contract.errors import UserError
from eyas_operator.settings import ENVIRONMENT_PREFIX

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
EVERYWHERE: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """How the process works."""

    namespace: str = ""
    """Its own namespace: home of the Lease, and what is watched unless `watch_namespaces` says otherwise."""
    pod_name: str = ""
    """Its own name, which no other live process has: the identity in the Lease."""
    watch_namespaces: str = ""
    """Names separated by commas; `*` for the whole cluster."""
    lease_name: str = "eyas-operator"
    key_directory: str = "/etc/eyas/operator-key"
    """Folder with `current` and perhaps `previous`, from which reader tokens derive."""
    workers: int = 32
    """Passes under way at once, at most."""
    relist_seconds: float = 60.0
    """All jobs and all their children are listed so often, whatever the streams say."""
    listen_address: str = ""
    """Address of probes and metrics; empty for all."""
    metrics_listen: int = 8080
    """Port of `/metrics`; 0 for any free one."""
    probes_listen: int = 8081
    """Port of `/healthz` and `/readyz`; likewise."""
    log_level: str = "INFO"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """What is watched: names, or `*` alone."""
        if self.watch_namespaces.strip() == EVERYWHERE:
            return (EVERYWHERE,)
        named = tuple(part.strip() for part in self.watch_namespaces.split(",") if part.strip())
        return tuple(dict.fromkeys(named)) or (self.namespace,)

    @property
    def key_folder(self) -> Path:
        """`key_directory` as a path."""
        return Path(self.key_directory)


def process_settings_from(environment: Mapping[str, str]) -> ProcessSettings:
    """Checked settings. Raises `UserError` with one sentence that names the variable."""
    values: dict[str, str | int | float] = {}
    for field in fields(ProcessSettings):
        key = ENVIRONMENT_PREFIX + field.name.upper()
        if key in environment:
            values[field.name] = _parsed(key, environment[key], type(field.default))
    settings = ProcessSettings(**values)  # type: ignore[arg-type]
    for name in ("namespace", "pod_name"):
        if not getattr(settings, name):
            raise UserError(f"{ENVIRONMENT_PREFIX}{name.upper()}: must be set (the chart does it by the downward API)")
    watched = settings.namespaces
    if EVERYWHERE in watched and watched != (EVERYWHERE,):
        raise UserError(
            f"{ENVIRONMENT_PREFIX}WATCH_NAMESPACES: {EVERYWHERE} stands for all and goes with no other name"
        )
    for name in (settings.namespace, *watched):
        if name != EVERYWHERE and not _NAMESPACE.fullmatch(name):
            raise UserError(f"{ENVIRONMENT_PREFIX}WATCH_NAMESPACES: {name[:80]!r} is not the name of a namespace")
    if settings.workers < 1 or settings.relist_seconds < 1:
        raise UserError(f"{ENVIRONMENT_PREFIX}WORKERS and {ENVIRONMENT_PREFIX}RELIST_SECONDS: must be at least 1")
    for port in (settings.metrics_listen, settings.probes_listen):
        if not 0 <= port <= 65535:
            raise UserError(
                f"{ENVIRONMENT_PREFIX}METRICS_LISTEN and {ENVIRONMENT_PREFIX}PROBES_LISTEN: {port} is no port"
            )
    return settings


def read_process_settings() -> ProcessSettings:
    """Settings of this process."""
    return process_settings_from(os.environ)


def _parsed(key: str, text: str, kind: type) -> str | int | float:
    try:
        value: str | int | float = kind(text)
    except ValueError as error:
        raise UserError(f"{key}: must be a {kind.__name__}, not {text[:80]!r}") from error
    return value
