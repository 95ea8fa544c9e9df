"""What was saved by any number of ranks is read back by any other, byte for byte, and has one digest of weights."""

import hashlib
import json
from pathlib import Path

import pytest
from safetensors import safe_open

from eyas_runtime.checkpoint.reader import CheckpointReader
from eyas_runtime.checkpoint.store import CheckpointRoot
from support.checkpoints import example_pieces, make_root, save_checkpoint


def open_saved(root: CheckpointRoot, step: int, world_size: int) -> CheckpointReader:
    request = save_checkpoint(root, step, world_size=world_size)
    return CheckpointReader(root.directory(request.directory), manifest_digest=request.manifest_digest)


def whole_bytes() -> dict[str, bytes]:
    return {piece.name: bytes(piece.data) for piece in example_pieces(0, 1)}


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 9])
def test_every_tensor_is_read_back_whole_whatever_world_wrote_it(tmp_path: Path, world_size: int) -> None:
    with open_saved(make_root(tmp_path), 4, world_size) as reader:
        assert {name: reader.read(name).tobytes() for name in reader.layout.tensors} == whole_bytes()


@pytest.mark.parametrize("written_by", [1, 2, 3])
@pytest.mark.parametrize("read_by", [1, 2, 3, 4])
def test_another_world_size_reads_exactly_its_slices(tmp_path: Path, written_by: int, read_by: int) -> None:
    with open_saved(make_root(tmp_path), 4, written_by) as reader:
        for rank in range(read_by):
            for piece in example_pieces(rank, read_by):
                assert reader.read(piece.name, piece.offset, piece.extent).tobytes() == bytes(piece.data)


def test_a_box_across_rows_and_columns_is_cut_out_of_several_files(tmp_path: Path) -> None:
    with open_saved(make_root(tmp_path), 4, 3) as reader:
        full = reader.read("weights/fc.weight")
        assert reader.read("weights/fc.weight", (2, 1), (4, 2)).tobytes() == full[2:6, 1:3].tobytes()


def test_the_weights_digest_is_the_same_for_every_world_size(tmp_path: Path) -> None:
    digests = {
        save_checkpoint(make_root(tmp_path / str(world)), 4, world_size=world).weights_sha256 for world in (1, 2, 3, 9)
    }
    assert len(digests) == 1


def test_the_weights_digest_is_names_dtypes_shapes_and_bytes_in_name_order(tmp_path: Path) -> None:
    request = save_checkpoint(make_root(tmp_path), 4, world_size=2)
    state = hashlib.sha256()
    for name, rows in (("b", 1), ("fc.weight", 7)):
        line = {"dtype": "float32", "name": name, "shape": [rows, 3]}
        state.update(json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        state.update(whole_bytes()[f"weights/{name}"])
    assert request.weights_sha256 == state.hexdigest()


def test_shards_are_ordinary_safetensors_files(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    request = save_checkpoint(root, 4, world_size=2)
    with safe_open(str(root.directory(request.directory) / "rank-00001-of-00002.safetensors"), framework="np") as file:
        array = file.get_tensor("weights/fc.weight")
    (piece,) = [piece for piece in example_pieces(1, 2) if piece.name == "weights/fc.weight"]
    assert array.shape == piece.extent
    assert array.tobytes() == bytes(piece.data)


def test_the_commit_names_what_is_on_disk(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    request = save_checkpoint(root, 12, world_size=2)
    path = root.directory(request.directory)
    assert request.directory == "step-000000012.a1.a1a1a1a1"
    assert request.nbytes == sum(file.stat().st_size for file in path.iterdir() if file.name != "receipt.json")
    assert sorted(file.name for file in path.iterdir()) == [
        "layout.json",
        "manifest.json",
        "rank-00000-of-00002.safetensors",
        "rank-00001-of-00002.safetensors",
        "receipt.json",
    ]
