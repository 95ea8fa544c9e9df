"""The target's files belong to the user: what is wrong with them is said with their name."""

from pathlib import Path

import pytest

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_runtime.capture.targets import TargetShape, target_shape
from eyas_runtime.target_files import JSON_BYTES_MAX, read_object, target_config
from support.hostile import UNDECODABLE


@pytest.mark.parametrize("raw", [*UNDECODABLE.values(), b"1" * 5000], ids=[*UNDECODABLE, "a number without end"])
def test_a_damaged_configuration_is_named(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(raw)
    if raw == UNDECODABLE["half of a surrogate pair"]:
        assert target_config(TargetConfig(model=str(tmp_path))) == {"a": "\ud800"}
        return
    with pytest.raises(UserError, match=r"config\.json"):
        target_config(TargetConfig(model=str(tmp_path)))


def test_a_file_without_end_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(JSON_BYTES_MAX + 1)
    with pytest.raises(UserError, match="more than"):
        read_object(path)


def test_the_shape_is_that_of_the_text_part_by_either_naming(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"text_config": {"n_embd": 8, "vocab_size": 9, "n_layer": 2}, "vocab_size": 1}'
    )
    assert target_shape(TargetConfig(model=str(tmp_path))) == TargetShape(hidden_size=8, vocab_size=9, layers=2)


@pytest.mark.parametrize("number", ["0", "true", '"8"', "8.0", "null"])
def test_a_shape_that_is_no_whole_number_is_refused(tmp_path: Path, number: str) -> None:
    (tmp_path / "config.json").write_text(f'{{"hidden_size": {number}, "vocab_size": 9, "num_hidden_layers": 2}}')
    with pytest.raises(UserError, match="hidden_size"):
        target_shape(TargetConfig(model=str(tmp_path)))
