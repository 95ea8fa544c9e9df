"""Bytes of others, whatever they are, end in a value or in an error of ours."""

from pathlib import Path

import pytest

from eyas_contract import wire
from eyas_contract.client_http import Answer, problem_of
from eyas_contract.config import read_config
from eyas_contract.errors import Transient, UserError
from support.hostile import UNDECODABLE

WRONG = pytest.mark.parametrize("raw", UNDECODABLE.values(), ids=UNDECODABLE)
LARGE = 1 << 30


@WRONG
@pytest.mark.parametrize("kind", [wire.Termination, wire.CommitRequest, wire.StatusReply, wire.AckRequest])
def test_a_message_that_is_none_is_refused_by_its_name(raw: bytes, kind: type[wire.Termination]) -> None:
    with pytest.raises(UserError, match=kind.__name__):
        wire.decode(raw, kind, bytes_max=LARGE)


@pytest.mark.parametrize("body", [b'{"metrics":{"loss\xff":1}}', b'{"verdicts":[{"reason":"\xff"}]}'])
def test_wrong_text_inside_a_known_field_is_refused(body: bytes) -> None:
    with pytest.raises(UserError, match="AckRequest"):
        wire.decode(body, wire.AckRequest, bytes_max=LARGE)


@WRONG
def test_an_error_answer_that_is_none_means_that_something_else_answered(raw: bytes) -> None:
    found = problem_of("/v1/ack", Answer(500, raw, 1))
    assert isinstance(found, Transient)
    assert "/v1/ack" in str(found)
    assert isinstance(problem_of("/v1/ack", Answer(500, b'{"kind":"Bug","message":"\xff"}', 1)), Transient)


@WRONG
def test_a_damaged_job_configuration_is_the_users_error_and_names_the_file(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"job\.json"):
        read_config(path)
