"""Claims about token files."""

from pathlib import Path

import pytest

from eyas_contract.errors import UserError
from eyas_contract.tokens import read_tokens

ONE = "a" * 64
TWO = "b" * 64


def test_a_file_holds_one_token_or_two(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{ONE}\n")
    assert read_tokens(path) == (ONE,)
    path.write_text(f"\n  {ONE}  \r\n{TWO}")
    assert read_tokens(path) == (ONE, TWO)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b" \n \n", "is empty", id="blank"),
        pytest.param(b"short\n", "32 to 512", id="short"),
        pytest.param(b"a" * 31, "32 to 512", id="one too few"),
        pytest.param(b"a" * 513, "32 to 512", id="long"),
        pytest.param(b"a" * 40 + b" " + b"b" * 40, "without spaces", id="space"),
        pytest.param(f"{ONE}\n{TWO}\n{'c' * 64}\n".encode(), "at most 2", id="three"),
        pytest.param("é".encode() * 40, "ASCII", id="not ascii"),
        pytest.param(b"a" * 5000, "larger than", id="huge"),
    ],
)
def test_a_bad_file_is_named_in_one_sentence(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "producer.token"
    path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as caught:
        read_tokens(path)
    assert "producer.token" in str(caught.value)
    assert "aaaa" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_tokens(tmp_path / "reader.token")
