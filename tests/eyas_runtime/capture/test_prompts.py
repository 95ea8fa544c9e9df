"""Prompt files are hostile: every wrong line is one sentence that names file and line."""

import json
from pathlib import Path

import pytest

from eyas_contract.errors import UserError
from eyas_runtime.capture import prompts
from eyas_runtime.capture.prompts import parse, read_at, scan

GOOD = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})


def test_every_prompt_is_found_again_by_its_offset(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(f"{GOOD}\n\n" + json.dumps({"text": "ü" * 50}) + "\r\n" + GOOD, encoding="utf-8")
    second.write_text(json.dumps({"conversations": [{"role": "user", "content": "c"}], "id": 7}) + "\n")
    files = (str(first), str(second))
    found = list(scan(files))
    assert [located.file_index for located in found] == [0, 0, 0, 1]
    for located in found:
        assert read_at(files, located.file_index, located.offset).prompt == located.prompt
    assert found[1].prompt.text == "ü" * 50
    assert found[2].where.endswith("a.jsonl line 4")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("{", "is not a prompt", id="torn"),
        pytest.param("[]", "is not a prompt", id="array"),
        pytest.param('{"prompt": "x"}', "exactly one of the fields", id="wrong field"),
        pytest.param('{"text": "x", "messages": []}', "exactly one of the fields", id="both"),
        pytest.param('{"text": ""}', "empty text", id="empty text"),
        pytest.param('{"messages": []}', "0 messages", id="no message"),
        pytest.param('{"messages": [{"role": "user"}]}', "content", id="no content"),
        pytest.param('{"messages": [{"role": "robot", "content": "x"}]}', "robot", id="unknown role"),
        pytest.param('{"messages": [{"role": "user", "content": ["x"]}]}', "content", id="content is a list"),
        pytest.param('{"text": "\\ud800"}', "is not a prompt", id="lone surrogate"),
    ],
)
def test_wrong_line_is_one_sentence_with_file_and_line(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(UserError, match=r"p.jsonl line 2") as caught:
        list(scan((str(path),)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"text": "\xff\xfe"}\n')
    with pytest.raises(UserError, match="line 1"):
        list(scan((str(path),)))


@pytest.mark.parametrize("content", ["", "\n\n  \n"], ids=["empty", "blank lines"])
def test_file_without_a_prompt_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match="holds no prompt"):
        list(scan((str(path),)))


def test_missing_file_is_the_users_error() -> None:
    with pytest.raises(UserError, match="No such file"):
        list(scan(("/nowhere/p.jsonl",)))


def test_endless_line_is_refused_before_it_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "LINE_BYTES_MAX", 64)
    path = tmp_path / "p.jsonl"
    path.write_text("x" * 1000)
    with pytest.raises(UserError, match="more than 64 bytes"):
        list(scan((str(path),)))


@pytest.mark.parametrize("offset", [3, 10_000], ids=["inside a line", "past the end"])
def test_offset_at_which_no_line_starts_means_that_the_file_changed(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f"{GOOD}\n{GOOD}\n")
    with pytest.raises(UserError, match="changed"):
        read_at((str(path),), 0, offset)


def test_file_index_out_of_range_means_that_the_job_changed() -> None:
    with pytest.raises(UserError, match="changed"):
        read_at((), 0, 0)


def test_unknown_fields_are_ignored() -> None:
    assert parse(b'{"text": "x", "source": "web"}', "here").text == "x"
