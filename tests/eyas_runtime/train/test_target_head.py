"""The two matrices of the target: found by name, tied or not, sharded, GGUF, or by loading the whole model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_runtime.target_files import target_config
from eyas_runtime.train.target_head import load_matrices
from support.tiny_target import VOCAB_SIZE, make_tiny_target


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_target(tmp_path_factory.mktemp("untied"), layers=5)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_target(tmp_path_factory.mktemp("tied"), layers=5, tied=True)


def matrices_of_model(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(str(folder))
    return model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()


@pytest.mark.parametrize("kind", ["untied", "tied"])
def test_both_matrices_are_those_of_the_loaded_model(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    found = load_matrices(TargetConfig(model=str(folder)), dtype=torch.float32)
    embedding, output = matrices_of_model(folder)
    assert torch.equal(found.embedding, embedding)
    assert torch.equal(found.output, output)
    assert (found.embedding is found.output) == (kind == "tied")


def test_a_sharded_target_is_read_through_its_index(untied: Path, tmp_path: Path) -> None:
    tensors = load_file(untied / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001.safetensors": names[::2], "model-00002.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, tmp_path / file)
    weight_map = {name: file for file, members in parts.items() for name in members}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "config.json").write_bytes((untied / "config.json").read_bytes())
    found = load_matrices(TargetConfig(model=str(tmp_path)), dtype=torch.float32)
    assert torch.equal(found.output, tensors["lm_head.weight"])


def test_names_under_another_tower_are_found_by_their_ending(untied: Path, tmp_path: Path) -> None:
    tensors = {f"language_model.{name}": tensor for name, tensor in load_file(untied / "model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((untied / "config.json").read_bytes())
    found = load_matrices(TargetConfig(model=str(tmp_path)), dtype=torch.float32)
    assert torch.equal(found.embedding, tensors["language_model.model.embed_tokens.weight"])


def test_matrices_come_in_the_dtype_asked_for(untied: Path) -> None:
    found = load_matrices(TargetConfig(model=str(untied)), dtype=torch.bfloat16)
    assert found.embedding.dtype == found.output.dtype == torch.bfloat16


def test_strange_names_are_left_to_transformers(untied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyas_runtime.train.target_head.EMBEDDING_NAMES", ("no_such.weight",))
    found = load_matrices(TargetConfig(model=str(untied)), dtype=torch.float32)
    assert torch.equal(found.output, matrices_of_model(untied)[1])


@pytest.mark.parametrize("tied_output", [False, True])
def test_a_gguf_file_gives_its_two_tensors(tmp_path: Path, tied_output: bool) -> None:
    gguf = pytest.importorskip("gguf")
    generator = torch.Generator().manual_seed(3)
    embedding, output = (torch.randn(24, 8, generator=generator) for _ in range(2))
    writer = gguf.GGUFWriter(str(tmp_path / "model.gguf"), "llama")
    writer.add_tensor("token_embd.weight", embedding.numpy())
    if not tied_output:
        writer.add_tensor("output.weight", output.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = load_matrices(TargetConfig(model=str(tmp_path), gguf_file="model.gguf"), dtype=torch.float32)
    assert torch.equal(found.embedding, embedding)
    assert torch.equal(found.output, embedding if tied_output else output)


@pytest.mark.parametrize("damage", ["missing", "not safetensors", "no config"])
def test_a_folder_that_cannot_be_served_is_a_mistake_of_the_user(tmp_path: Path, untied: Path, damage: str) -> None:
    folder = tmp_path / "target"
    if damage != "missing":
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match=str(folder)):
        load_matrices(TargetConfig(model=str(folder)), dtype=torch.float32)
    with pytest.raises(UserError, match="config"):
        target_config(TargetConfig(model=str(folder)))


def test_the_configuration_is_the_folders_own(untied: Path) -> None:
    assert target_config(TargetConfig(model=str(untied)))["vocab_size"] == VOCAB_SIZE
