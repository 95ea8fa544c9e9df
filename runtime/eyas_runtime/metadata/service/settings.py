"""Environment and mounted files of the metadata role, as one frozen value; the only reader of the environment here."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from eyas_contract import env
from eyas_contract.config import JobConfig, read_config
from eyas_contract.errors import UserError
from eyas_runtime.environment import required, required_path, whole_number
from eyas_runtime.metadata.receipts import KEY_BYTES_MIN

KEY_BYTES_MAX = 1024


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that the service is told from outside."""

    config: JobConfig
    token_directory: Path
    database: Path
    host: str
    port: int
    recorded_step: int
    receipt_key: bytes

    def __repr__(self) -> str:
        # The receipt key must never reach a log through a traceback or a debugger's print.
        return f"Settings(job={self.config.name!r}, database={str(self.database)!r}, host={self.host!r})"


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read everything once. Raises `UserError` naming the variable or file that is missing or wrong."""
    values = os.environ if environment is None else environment
    config = read_config(required(values, env.CONFIG_FILE))
    tokens = required_path(values, env.TOKEN_DIRECTORY)
    directory = required_path(values, env.METADATA_DIRECTORY)
    if not directory.is_dir():
        raise UserError(f"{env.METADATA_DIRECTORY} names {directory}, which is not a folder")
    uid = values.get(env.JOB_UID, config.job_uid)
    if uid != config.job_uid:
        raise UserError(f"{env.JOB_UID} is {uid[:80]!r}, but the configuration is of job {config.job_uid!r}")
    return Settings(
        config=config,
        token_directory=tokens,
        database=directory / "metadata.sqlite",
        host=required(values, env.HOST_ADDRESS),
        port=_port(config.endpoints.metadata_url),
        recorded_step=whole_number(values, env.CHECKPOINT_STEP, 0),
        receipt_key=_read_key(tokens / env.RECEIPT_KEY),
    )


def _port(url: str) -> int:
    """The service listens where its URL says that it is."""
    try:
        port = urlsplit(url).port
    except ValueError as error:
        raise UserError(f"endpoints.metadata_url {url!r} has no valid port") from error
    return env.METADATA_PORT if port is None else port


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            key = file.read(KEY_BYTES_MAX + 1).strip()
    except OSError as error:
        raise UserError(f"cannot read the receipt key {path}: {error.strerror}") from error
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise UserError(f"the receipt key {path} has {len(key)} bytes; it needs {KEY_BYTES_MIN} to {KEY_BYTES_MAX}")
    return key
