"""One JSON object per line on stderr: time, level, logger, message, and what the call gave as `extra`.

Nothing secret is ever given: names, classes and numbers only. A pass sets `JOB` for everything that is logged in it.
"""

import logging
import sys
import traceback
from contextvars import ContextVar
from typing import Any, Final

import msgspec

from eyas_contract.errors import UserError
from eyas_operator.world import time_of

JOB: ContextVar[str] = ContextVar("job", default="")
"""`namespace/name` of the job that the present pass is over."""
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_TEXT_MAX: Final = 8000


class JsonLines(logging.Formatter):
    """Formats a record as one line, whatever it holds."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time_of(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage()[:_TEXT_MAX],
        }
        if JOB.get():
            line["job"] = JOB.get()
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD and name[0] != "_"}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))[-_TEXT_MAX:]
        return msgspec.json.encode(line, enc_hook=str).decode()


def log_to_stderr(level: str) -> None:
    """Everything of this process goes to stderr from now on. Raises `UserError` for an unknown level."""
    if level.upper() not in LEVELS:
        raise UserError(f"EYAS_OPERATOR_LOG_LEVEL: must be one of {', '.join(LEVELS)}, not {level[:40]!r}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # kopf tells of every event that it hands over, aiohttp of every request that it serves.
    for noisy in ("kopf", "aiohttp.access", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
