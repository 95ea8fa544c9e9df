"""Logs: one JSON object per line, whatever is logged."""

import json
import logging
import sys

import pytest

from eyas_contract.errors import UserError
from eyas_operator.process.logs import JOB, JsonLines, log_to_stderr


def a_line(message: str, *, extra: dict[str, object] | None = None, error: bool = False) -> dict[str, object]:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        found = sys.exc_info() if error else None
    record = logging.getLogger("x").makeRecord("x", logging.INFO, "f", 1, message, (), found, extra=extra)
    text = JsonLines().format(record)
    assert "\n" not in text
    decoded: dict[str, object] = json.loads(text)
    return decoded


def test_a_line_carries_what_was_given_and_the_job_of_the_pass() -> None:
    token = JOB.set("ns/demo")
    try:
        line = a_line("hello\nworld", extra={"seconds": 0.5, "odd": {1, 2}, "path": object()})
    finally:
        JOB.reset(token)
    assert (line["message"], line["job"], line["seconds"], line["level"]) == ("hello\nworld", "ns/demo", 0.5, "INFO")
    assert "job" not in a_line("outside")


def test_an_exception_is_one_line_too() -> None:
    assert "ValueError: first\nsecond" in str(a_line("broken", error=True)["exception"])


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="EYAS_OPERATOR_LOG_LEVEL"):
        log_to_stderr("LOUD")
