"""Existing feature files: read plain and gzipped, bounded, and never as a program."""

import gzip
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eyas_contract.errors import Corrupt, UserError
from eyas_contract.ids import ObjectKey, sample_id
from eyas_contract.refs import PromptTask
from eyas_runtime.capture import feature_files
from eyas_runtime.capture.engine import AUX, INPUT_IDS, LAST, LOSS_MASK
from eyas_runtime.capture.feature_files import FeatureFileEngine, check_against_target, read_features

H, V, L = 8, 50, 12


def raw(length: int = L, *, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {
        "input_ids": torch.randint(0, V, (1, length), generator=source),
        "loss_mask": torch.randint(0, 2, (1, length), generator=source),
        "hidden_state": torch.randn(1, length, H, generator=source).to(dtype),
        "aux_hidden_state": torch.randn(1, length, 3 * H, generator=source).to(dtype),
    }


def write(path: Path, value: object) -> Path:
    torch.save(value, path)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


@pytest.mark.parametrize("name", ["a.ckpt", "a.ckpt.gz"])
def test_plain_and_gzipped_files_give_the_stored_names(tmp_path: Path, name: str) -> None:
    source = raw()
    features = read_features(write(tmp_path / name, source), max_length=100)
    assert features.keys() == {INPUT_IDS, LOSS_MASK, AUX, LAST}
    assert torch.equal(features[INPUT_IDS], source["input_ids"][0])
    assert torch.equal(features[AUX], source["aux_hidden_state"][0])
    assert torch.equal(features[LAST], source["hidden_state"][0])
    assert (features[INPUT_IDS].dtype, features[LOSS_MASK].dtype) == (torch.int64, torch.uint8)


def test_file_without_the_leading_dimension_is_read_too(tmp_path: Path) -> None:
    source = {name: tensor[0] for name, tensor in raw().items()}
    assert len(read_features(write(tmp_path / "a.ckpt", source), max_length=100)[AUX]) == L


def test_long_sample_is_cut_everywhere(tmp_path: Path) -> None:
    features = read_features(write(tmp_path / "a.ckpt", raw()), max_length=5)
    assert [len(tensor) for tensor in features.values()] == [5] * 4


def test_what_was_read_does_not_change_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ckpt", raw())
    features = read_features(path, max_length=100)
    kept = features[AUX].clone()
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert torch.equal(features[AUX], kept)


class Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("name", ["a.ckpt", "a.ckpt.gz"])
def test_pickled_program_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "owned"
    path = write(tmp_path / name, {**raw(), "extra": Attack(marker)})
    with pytest.raises(Corrupt, match="plain tensors"):
        read_features(path, max_length=100)
    assert not marker.exists()


def test_bare_pickle_and_legacy_format_are_refused(tmp_path: Path) -> None:
    marker = tmp_path / "owned"
    bare, legacy = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    bare.write_bytes(pickle.dumps(Attack(marker)))
    torch.save(raw(), legacy, _use_new_zipfile_serialization=False)
    for path in (bare, legacy):
        with pytest.raises(Corrupt, match="zip format"):
            read_features(path, max_length=100)
    assert not marker.exists()


def test_gzip_bomb_is_stopped_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_files, "FILE_BYTES_MAX", 1 << 20)
    path = tmp_path / "a.ckpt.gz"
    path.write_bytes(gzip.compress(bytes(16 << 20)))
    with pytest.raises(Corrupt, match="grows to more"):
        read_features(path, max_length=100)


def test_compressed_record_inside_the_zip_is_refused(tmp_path: Path) -> None:
    plain, bomb = write(tmp_path / "a.ckpt", raw()), tmp_path / "b.ckpt"
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(Corrupt, match="compressed record"):
        read_features(bomb, max_length=100)


def test_half_a_file_is_corrupt(tmp_path: Path) -> None:
    for name in ("a.ckpt", "a.ckpt.gz"):
        path = write(tmp_path / name, raw())
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(Corrupt):
            read_features(path, max_length=100)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"loss_mask": None}, "no dense tensor loss_mask", id="missing"),
        pytest.param({"input_ids": torch.zeros(1, L)}, "whole numbers", id="float ids"),
        pytest.param({"hidden_state": torch.zeros(1, L, H, dtype=torch.int32)}, "floating point", id="int states"),
        pytest.param({"aux_hidden_state": torch.zeros(1, L - 1, 3 * H)}, "shape", id="other length"),
        pytest.param({"loss_mask": torch.ones(2, L)}, "shape", id="two rows"),
        pytest.param({"input_ids": torch.zeros(1, 0, dtype=torch.int64)}, "no token", id="empty"),
        pytest.param({"input_ids": torch.zeros(1, L, dtype=torch.int64).to_sparse()}, "dense", id="sparse"),
    ],
)
def test_wrong_layout_is_corrupt_with_the_file_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    value = {name: tensor for name, tensor in {**raw(), **change}.items() if tensor is not None}
    with pytest.raises(Corrupt, match=r"a\.ckpt") as caught:
        read_features(write(tmp_path / "a.ckpt", value), max_length=100)
    assert says in str(caught.value)


def test_other_targets_widths_and_ids_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ckpt", raw())
    features = read_features(path, max_length=100)
    check_against_target(features, path, hidden_size=H, vocab_size=V)
    with pytest.raises(Corrupt, match="wide"):
        check_against_target(features, path, hidden_size=H + 1, vocab_size=V)
    with pytest.raises(Corrupt, match="token id"):
        check_against_target(features, path, hidden_size=H, vocab_size=3)


def task(index: int, *, num_tokens: int = L, capture: bool = True) -> PromptTask:
    return PromptTask(
        sample_id=sample_id(index), sequence=index, prompt_index=index, file_index=0, offset=index,
        num_tokens=num_tokens, capture=capture, key=ObjectKey("k"),
    )  # fmt: skip


def engine(folder: Path) -> FeatureFileEngine:
    return FeatureFileEngine((str(folder),), max_length=100, hidden_size=H, vocab_size=V, dtype=torch.float32)


def test_engine_reads_the_named_file_and_converts_to_the_targets_dtype(tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path / f"{index}.ckpt", raw(seed=index))
    moved: list[int] = []
    outcomes = engine(tmp_path).capture([task(2), task(0, capture=False), task(1)], 0, lambda: moved.append(1))
    assert [outcome.task.sequence for outcome in outcomes] == [2, 1]
    features = outcomes[0].features
    assert features is not None
    assert torch.equal(features[LAST], raw(seed=2)["hidden_state"][0].float())
    assert len(moved) == 2


def test_values_that_are_not_finite_are_poison(tmp_path: Path) -> None:
    bad = raw()
    bad["hidden_state"][0, 3] = float("inf")
    write(tmp_path / "0.ckpt", bad)
    assert "not finite" in engine(tmp_path).capture([task(0)], 0, lambda: None)[0].problem


def test_file_that_spoiled_since_prepare_is_poison_but_another_length_stops_the_job(tmp_path: Path) -> None:
    write(tmp_path / "0.ckpt", raw())
    (tmp_path / "1.ckpt").write_bytes(b"nonsense")
    reader = engine(tmp_path)
    assert "zip format" in reader.capture([task(1)], 0, lambda: None)[0].problem
    with pytest.raises(UserError, match="when the job was prepared"):
        reader.capture([task(0, num_tokens=L + 1)], 0, lambda: None)
