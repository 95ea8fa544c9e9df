"""A pod's secrets: token files and variables that are called so, each replaced wherever it stands."""

from pathlib import Path

from eyas_contract import env
from eyas_runtime.supervisor.redaction import known_secrets, redact


def test_token_files_and_variables_with_such_names_are_secrets_the_longest_first(tmp_path: Path) -> None:
    (tmp_path / env.TOKEN_STORE).write_text("token-of-the-store\n")
    (tmp_path / "folder").mkdir()
    environ = {
        env.TOKEN_DIRECTORY: str(tmp_path),
        "HF_TOKEN": "hf_longer_than_all_others",
        "AWS_SECRET_ACCESS_KEY": "hf_longer",
        "Db_Password": "0123456789",
        "TOKENIZERS_PARALLELISM": "false",
        "HOME": "/home/somebody",
    }
    assert known_secrets(environ) == ["hf_longer_than_all_others", "token-of-the-store", "0123456789", "hf_longer"]
    assert redact("a hf_longer_than_all_others b", known_secrets(environ)) == "a [redacted] b"


def test_a_pod_without_tokens_has_no_secrets(tmp_path: Path) -> None:
    assert known_secrets({}) == []
    assert known_secrets({env.TOKEN_DIRECTORY: str(tmp_path / "missing")}) == []
