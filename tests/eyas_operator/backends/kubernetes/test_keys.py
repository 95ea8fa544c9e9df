"""Read tokens derive from the operator's key: the same everywhere, one per job, and across one rotation."""

from pathlib import Path

import pytest

from eyas_contract import env
from eyas_contract.errors import UserError
from eyas_operator.backends.kubernetes.keys import OperatorKeys
from eyas_operator.backends.local.secrets import OPERATOR_KEY_FILE, Secrets
from eyas_operator.cluster import SecretShape
from support.operator_world import JOB

PURPOSE = env.TOKEN_READER


def test_both_backends_derive_the_same_token_from_the_same_key(tmp_path: Path) -> None:
    (tmp_path / OPERATOR_KEY_FILE).write_text("k" * 64 + "\n")
    (tmp_path / "current").write_text("k" * 64)
    local = Secrets(tmp_path, JOB.job_uid)
    local.ensure(SecretShape(manifest={"metadata": {"name": "reader"}}, derived=(PURPOSE,)))
    assert OperatorKeys(tmp_path).tokens(PURPOSE, JOB.job_uid) == (local.path("reader", PURPOSE).read_text().strip(),)


def test_tokens_differ_by_job_and_by_purpose(tmp_path: Path) -> None:
    (tmp_path / "current").write_text("k" * 64)
    keys = OperatorKeys(tmp_path)
    assert len({keys.tokens(PURPOSE, "a"), keys.tokens(PURPOSE, "b"), keys.tokens("other", "a")}) == 3


def test_rotated_key_is_seen_without_a_restart_and_the_old_one_stays_valid(tmp_path: Path) -> None:
    (tmp_path / "current").write_text("1" * 64)
    keys = OperatorKeys(tmp_path)
    (old,) = keys.tokens(PURPOSE, "a")
    (tmp_path / "previous").write_text("1" * 64)
    (tmp_path / "current").write_text("2" * 64)
    new = keys.tokens(PURPOSE, "a")
    assert len(new) == 2
    assert new[1] == old


@pytest.mark.parametrize("content", [None, "", "short"])
def test_missing_or_short_key_is_a_sentence(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "current").write_text(content)
    with pytest.raises(UserError, match="current must hold"):
        OperatorKeys(tmp_path).tokens(PURPOSE, "a")
