"""What a supervisor is told: its arguments, its environment and the job's configuration, read once at the start."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eyas_contract import env
from eyas_contract.config import Endpoints, RecoveryConfig, read_config
from eyas_contract.errors import UserError
from eyas_runtime.environment import required, whole_number

GRACE_SECONDS_DEFAULT: Final = 30.0
"""Kubernetes' own default for `terminationGracePeriodSeconds`."""
GANG_ROLE: Final = "consumer"
PROCESSES_MAX: Final = 64
"""Ranks of one pod; more devices than any machine has."""
_REPORT_TOKENS: Final[Mapping[str, str]] = {
    "metadata": env.TOKEN_STORE,
    "store-master": env.TOKEN_STORE,
    "store-node": env.TOKEN_STORE,
    "producer": env.TOKEN_PRODUCER,
}
"""With what each role's supervisor tells of restarts; the ranks' tells of exits."""
_NO_CONFIGURATION: Final = RecoveryConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class GangSettings:
    """How to reach the metadata service on behalf of the ranks of a consumer pod."""

    metadata_url: str
    token_file: Path
    attempt: int
    first_rank: int
    world_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """How to tell the metadata service of restarts of a pod that has one child."""

    metadata_url: str
    token_file: Path
    role: str
    index: int
    serial: int
    """Ordinal of the pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a supervisor decides from."""

    role: str
    index: int
    processes: int
    command: tuple[str, ...]
    pod_directory: Path
    termination_log: Path | None
    recovery: RecoveryConfig
    grace_seconds: float
    gang: GangSettings | None
    reports: ReportSettings | None = None
    ready_address: tuple[str, int] | None = None
    """Address and port that are open while the pod is ready."""


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Settings from argv and environment. Raises `UserError` naming what is missing or wrong."""
    parsed = _parse(arguments)
    index = whole_number(environ, env.REPLICA_INDEX, 0)
    config_file = environ.get(env.CONFIG_FILE)
    config = read_config(config_file) if config_file else None
    gang = None
    if parsed.role == GANG_ROLE and config is not None:
        gang = _gang(environ, config.endpoints, config.world_size, index * parsed.processes)
    reports = _reports(environ, config.endpoints, parsed.role, index) if config is not None else None
    pod_directory = environ.get(env.POD_DIRECTORY)
    if not pod_directory:
        raise UserError(f"{env.POD_DIRECTORY} is not set: the supervisor needs a writable folder of its pod")
    log = environ.get(env.TERMINATION_LOG)
    return Settings(
        role=parsed.role,
        index=index,
        processes=parsed.processes,
        command=tuple(parsed.command),
        pod_directory=Path(pod_directory),
        termination_log=Path(log) if log else None,
        recovery=config.recovery if config else _NO_CONFIGURATION,
        grace_seconds=whole_number(environ, env.GRACE_SECONDS, int(GRACE_SECONDS_DEFAULT)),
        gang=gang,
        reports=reports,
        ready_address=_ready_address(environ),
    )


def _ready_address(environ: Mapping[str, str]) -> tuple[str, int] | None:
    port = whole_number(environ, env.READY_PORT, 0)
    return (required(environ, env.HOST_ADDRESS), port) if port else None


def _reports(environ: Mapping[str, str], endpoints: Endpoints, role: str, index: int) -> ReportSettings | None:
    token, tokens = _REPORT_TOKENS.get(role), environ.get(env.TOKEN_DIRECTORY)
    if token is None or not tokens:
        return None
    return ReportSettings(
        metadata_url=endpoints.metadata_url,
        token_file=Path(tokens, token),
        role=role,
        index=index,
        serial=whole_number(environ, env.ORDINAL, 0),
    )


def _gang(environ: Mapping[str, str], endpoints: Endpoints, world_size: int, first_rank: int) -> GangSettings:
    tokens = environ.get(env.TOKEN_DIRECTORY)
    if not tokens:
        raise UserError(f"{env.TOKEN_DIRECTORY} is not set: a consumer's supervisor needs {env.TOKEN_CONSUMER}")
    return GangSettings(
        metadata_url=endpoints.metadata_url,
        token_file=Path(tokens, env.TOKEN_CONSUMER),
        attempt=whole_number(environ, env.ATTEMPT, 1),
        first_rank=first_rank,
        world_size=world_size,
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="eyas_runtime.supervisor", description=__doc__, exit_on_error=False)
    parser.add_argument("--role", required=True)
    parser.add_argument("--processes", type=int, default=1, help="children that run side by side and restart together")
    options = list(arguments)
    command: list[str] = []
    if "--" in options:
        place = options.index("--")
        options, command = options[:place], options[place + 1 :]
    if not command:
        raise UserError("the supervisor's arguments must end with -- and the command of one child")
    try:
        parsed = parser.parse_args(options)
    except (argparse.ArgumentError, SystemExit) as error:
        raise UserError(f"the supervisor's arguments are not valid: {error}") from error
    if not 1 <= parsed.processes <= PROCESSES_MAX:
        raise UserError(f"--processes is {parsed.processes}; it must be between 1 and {PROCESSES_MAX}")
    parsed.command = command
    return parsed
