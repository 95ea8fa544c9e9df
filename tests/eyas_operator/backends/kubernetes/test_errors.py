"""What answers of the API server become."""

import json

import pytest

from eyas_contract.errors import Conflict, EyasError, Transient
from eyas_operator.backends.kubernetes.errors import RETRY_SECONDS_MAX, Exists, Expired, Missing, problem_of
from eyas_operator.errors import Refused


def answered(status: int, *, reason: str = "", message: str = "", retry: float = 0.0, header: str = "") -> EyasError:
    body = {"reason": reason, "message": message, "details": {"retryAfterSeconds": retry}}
    return problem_of(status, json.dumps(body).encode(), header, "GET /x")


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", Refused),
        (401, "Unauthorized", Transient),
        (403, "Forbidden", Refused),
        (404, "NotFound", Missing),
        (409, "AlreadyExists", Exists),
        (409, "Conflict", Conflict),
        (410, "Expired", Expired),
        (422, "Invalid", Refused),
        (429, "TooManyRequests", Transient),
        (500, "InternalError", Transient),
        (503, "ServiceUnavailable", Transient),
        (504, "Timeout", Transient),
    ],
)
def test_each_status_has_its_class(status: int, reason: str, kind: type[EyasError]) -> None:
    assert type(answered(status, reason=reason)) is kind


def test_servers_own_sentence_is_kept() -> None:
    assert 'pods "x" is forbidden: exceeded quota' in str(
        answered(403, reason="Forbidden", message='pods "x" is forbidden: exceeded quota')
    )
    assert "spec.nodeSelector" in str(answered(422, reason="Invalid", message="spec.nodeSelector: Invalid value"))


@pytest.mark.parametrize(
    ("retry", "header", "seconds"), [(0, "", 1.0), (7, "", 7.0), (0, "9", 9.0), (3, "2", 3.0), (0, "never", 1.0)]
)
def test_pause_is_what_the_server_asks_for(retry: float, header: str, seconds: float) -> None:
    error = answered(429, retry=retry, header=header)
    assert isinstance(error, Transient)
    assert error.retry_after_seconds == seconds


def test_pause_is_bounded() -> None:
    error = answered(503, retry=86_400)
    assert isinstance(error, Transient)
    assert error.retry_after_seconds == RETRY_SECONDS_MAX


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"[]", b"[" * 100_000])
def test_words_of_a_gateway_are_no_reason_to_fall(body: bytes) -> None:
    assert isinstance(problem_of(502, body, "", "GET /x"), Transient)
