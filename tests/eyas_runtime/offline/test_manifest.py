"""A manifest names files and holds no tensor; what it names is what is ingested, or nothing is."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest
import torch

from eyas_contract.errors import UserError
from eyas_runtime.capture.ingest import ingest
from eyas_runtime.capture.prepare import prepare
from eyas_runtime.inputs import digest_inputs, feature_files
from eyas_runtime.offline.manifest import FeatureFile, Manifest, read_manifest, write_manifest
from support.tiny_target import tiny_job

ENTRY = FeatureFile(name="a/1.ckpt", nbytes=3, digest="blake3:" + "0" * 64, num_tokens=4, num_supervised=2)


def write_features(folder: Path, *lengths: int, width: int = 32) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, length in enumerate(lengths):
        source = torch.Generator().manual_seed(index)
        torch.save(
            {
                "input_ids": torch.full((1, length), 9 + index), "loss_mask": torch.ones(1, length),
                "hidden_state": torch.randn(1, length, width, generator=source),
                "aux_hidden_state": torch.randn(1, length, 3 * width, generator=source),
            },
            folder / f"{index}.ckpt",
        )  # fmt: skip
    return folder


def test_manifest_lists_every_file_with_its_counts_and_survives_the_round_trip(tmp_path: Path) -> None:
    made = ingest([write_features(tmp_path / "f", 5, 9)], tmp_path / "m.json", max_length=7)
    assert read_manifest(tmp_path / "m.json") == made
    assert [(entry.name, entry.num_tokens, entry.num_supervised) for entry in made.files] == [
        ("f/0.ckpt", 5, 4),
        ("f/1.ckpt", 7, 6),
    ]
    assert made.hidden_size == 32


def test_tensor_in_a_manifest_is_refused(tmp_path: Path) -> None:
    forged = msgspec.structs.replace(ENTRY, num_tokens=torch.ones(2))
    with pytest.raises(TypeError, match="never tensors"):
        write_manifest(tmp_path / "m.json", Manifest(hidden_size=4, max_length=9, files=(forged,)))
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"schema": 2}, "schema 2", id="schema"),
        pytest.param({"extra": 1}, "not a feature manifest", id="unknown field"),
        pytest.param({"files": []}, "names no file", id="empty"),
        pytest.param({"hidden_size": "x"}, "not a feature manifest", id="type"),
    ],
)
def test_wrong_manifest_is_one_sentence(tmp_path: Path, change: dict[str, object], says: str) -> None:
    good = json.loads(msgspec.json.encode(Manifest(hidden_size=4, max_length=9, files=(ENTRY,))))
    (tmp_path / "m.json").write_text(json.dumps({**good, **change}))
    with pytest.raises(UserError, match=says):
        read_manifest(tmp_path / "m.json")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.ckpt", "a/../../x", "a//b", "./a", ".", "a\0b"])
def test_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    entry = msgspec.structs.replace(ENTRY, name=name)
    (tmp_path / "m.json").write_bytes(msgspec.json.encode(Manifest(hidden_size=4, max_length=9, files=(entry,))))
    with pytest.raises(UserError, match="plain path"):
        read_manifest(tmp_path / "m.json")


def test_file_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="twice"):
        write_manifest(tmp_path / "m.json", Manifest(hidden_size=4, max_length=9, files=(ENTRY, ENTRY)))


def test_manifest_beside_copied_files_prepares_the_same_job(tmp_path: Path, target: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    ingest([write_features(here / "f", 5, 9, 6)], here / "m.json", max_length=96)
    shutil.copytree(here, there)
    jobs = [tiny_job(tmp_path, target=target, features=(place / "m.json",)) for place in (here, there)]
    assert digest_inputs(jobs[0]) == digest_inputs(jobs[1])
    first, second = (prepare(job, digest_inputs(job), lambda: None) for job in jobs)
    assert first == second
    assert first.prompt_count == 3


def test_only_the_files_of_the_manifest_are_ingested_in_its_order(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "f", 5, 9, 6)
    made = ingest([folder], tmp_path / "m.json", max_length=96)
    chosen = msgspec.structs.replace(made, files=(made.files[2], made.files[0]))
    write_manifest(tmp_path / "m.json", chosen)
    assert [path.name for path in feature_files(str(tmp_path / "m.json"))] == ["2.ckpt", "0.ckpt"]


def test_file_that_changed_on_its_way_stops_the_job(tmp_path: Path, target: Path) -> None:
    folder = write_features(tmp_path / "f", 5, 9)
    ingest([folder], tmp_path / "m.json", max_length=96)
    job = tiny_job(tmp_path, target=target, features=(tmp_path / "m.json",))
    path = folder / "1.ckpt"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"1\.ckpt does not match its digest"):
        prepare(job, digest_inputs(job), lambda: None)
    path.write_bytes(raw[:-1])
    with pytest.raises(UserError, match="its manifest says"):
        digest_inputs(job)
    path.unlink()
    with pytest.raises(UserError, match="not beside it"):
        digest_inputs(job)


def test_manifest_must_lie_above_its_files(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "f", 5)
    with pytest.raises(UserError, match="travel together"):
        ingest([folder], tmp_path / "elsewhere" / "m.json", max_length=96)


def test_files_of_different_targets_are_refused(tmp_path: Path) -> None:
    folders = [write_features(tmp_path / "f", 5), write_features(tmp_path / "g", 5, width=16)]
    with pytest.raises(UserError, match="different width"):
        ingest(folders, tmp_path / "m.json", max_length=96)
