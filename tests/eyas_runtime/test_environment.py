"""A variable that is missing or wrong is named; nothing else ever comes of it."""

from pathlib import Path

import pytest

from eyas_contract.errors import UserError
from eyas_runtime.environment import required, required_path, whole_number


@pytest.mark.parametrize("values", [{}, {"X": ""}], ids=["absent", "empty"])
def test_what_is_not_set_is_named(values: dict[str, str]) -> None:
    for read in (required, required_path, whole_number):
        with pytest.raises(UserError, match="X is not set"):
            read(values, "X")
    assert whole_number(values, "X", 7) == 7


def test_what_is_set_is_read() -> None:
    assert required({"X": "v"}, "X") == "v"
    assert required_path({"X": "/a/b"}, "X") == Path("/a/b")
    assert whole_number({"X": "12"}, "X", 7) == 12


@pytest.mark.parametrize("text", ["-1", "1.5", "two", "\u00b2", "\u0663", " 1"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"X is .* whole number"):
        whole_number({"X": text}, "X", 7)
