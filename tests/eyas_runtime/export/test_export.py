"""What is exported is what was trained, in the layout that engines read, or nothing."""

import json
from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from eyas_contract import wire
from eyas_contract.config import TargetConfig
from eyas_contract.errors import Corrupt, UserError
from eyas_contract.ids import Incarnation
from eyas_runtime.checkpoint import manifest as manifests
from eyas_runtime.checkpoint.names import MANIFEST, RECEIPT
from eyas_runtime.checkpoint.store import CheckpointRoot, Strike
from eyas_runtime.export import export_draft, open_source
from eyas_runtime.export.reading import read_exported
from eyas_runtime.export.source import find_best, find_checkpoint
from eyas_runtime.train.draft_state import load_weights
from eyas_runtime.train.initial_draft import draft_reader
from support.checkpoints import make_root, save_checkpoint
from support.drafts import draft_pieces, exported, save_draft, tiny_draft
from support.tiny_target import make_tiny_target

SGLANG_KEYS = {
    "fc.weight", "norm.weight", "lm_head.weight", "d2t", "t2d", "midlayer.input_layernorm.weight",
    "midlayer.hidden_norm.weight", "midlayer.post_attention_layernorm.weight", "midlayer.self_attn.q_proj.weight",
    "midlayer.self_attn.k_proj.weight", "midlayer.self_attn.v_proj.weight", "midlayer.self_attn.o_proj.weight",
    "midlayer.mlp.gate_proj.weight", "midlayer.mlp.up_proj.weight", "midlayer.mlp.down_proj.weight",
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> CheckpointRoot:
    return make_root(tmp_path)


def test_sglang_layout_has_exactly_the_keys_that_engines_read(
    tmp_path: Path, root: CheckpointRoot, target: Path
) -> None:
    draft = tiny_draft(target)
    done = export_draft(open_source(save_draft(root, draft, 7)), tmp_path / "out")
    tensors = load_file(done.path / "model.safetensors")
    assert set(tensors) == SGLANG_KEYS
    assert {tensors[name].dtype for name in SGLANG_KEYS - {"d2t", "t2d"}} == {torch.bfloat16}
    assert (tensors["d2t"].dtype, tensors["t2d"].dtype) == (torch.int64, torch.bool)
    assert torch.equal(tensors["t2d"].nonzero().squeeze(1), tensors["d2t"] + torch.arange(len(tensors["d2t"])))
    assert torch.equal(tensors["fc.weight"], draft.fc.weight.detach().bfloat16())
    assert (done.step, done.tensors) == (7, len(SGLANG_KEYS))


def test_newer_variant_exports_its_extra_norms(tmp_path: Path, root: CheckpointRoot, target: Path) -> None:
    done = export_draft(open_source(save_draft(root, tiny_draft(target, newer=True), 7)), tmp_path / "out")
    with safe_open(done.path / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == SGLANG_KEYS | {f"fc_norm.{i}.weight" for i in range(3)}
    assert json.loads((done.path / "config.json").read_text())["norm_output"] is True


def test_huggingface_layout_stands_alone_and_keeps_every_bit(
    tmp_path: Path, root: CheckpointRoot, target: Path
) -> None:
    draft = tiny_draft(target)
    folder = exported(root, draft, tmp_path / "out", target)
    read = read_exported(folder)
    assert read.embedding is not None
    assert torch.equal(read.embedding, draft.embedding)
    for name, parameter in draft.named_parameters():
        assert torch.equal(read.tensors[name], parameter)
    assert asdict(read.config) == {**asdict(draft.config), "initializer_range": read.config.initializer_range}
    assert np.array_equal(read.vocab.d2t, draft.d2t.numpy())


def test_exported_draft_can_be_trained_on(tmp_path: Path, root: CheckpointRoot, target: Path) -> None:
    draft = tiny_draft(target, seed=1)
    folder = exported(root, draft, tmp_path / "out", target)
    other = tiny_draft(target, seed=2)
    load_weights(other, draft_reader(folder))
    for (name, mine), (_, theirs) in zip(draft.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_config_carries_rope_in_both_forms_and_where_it_came_from(
    tmp_path: Path, root: CheckpointRoot, target: Path
) -> None:
    draft = tiny_draft(target)
    source = open_source(save_draft(root, draft, 7))
    config = json.loads((export_draft(source, tmp_path / "out").path / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == draft.config.rope_theta
    assert config["rope_parameters"]["rope_type"] == "default"
    assert config["architectures"] == ["LlamaForCausalLMEagle3"]
    assert (config["draft_vocab_size"], config["num_hidden_layers"]) == (64, 1)
    assert config["eyas"]["weights_sha256"] == source.manifest.weights_sha256
    assert "eagle_config" not in config
    other = export_draft(source, tmp_path / "other", capture_layers=(0, 2, 4)).path / "config.json"
    assert json.loads(other.read_text())["eagle_config"]["eagle_aux_hidden_state_layer_ids"] == [0, 2, 4]


def test_config_loads_as_a_transformers_configuration(tmp_path: Path, root: CheckpointRoot, target: Path) -> None:
    from transformers import AutoConfig

    done = export_draft(open_source(save_draft(root, tiny_draft(target), 7)), tmp_path / "out")
    assert AutoConfig.from_pretrained(done.path).num_hidden_layers == 1


def test_newest_committed_checkpoint_of_a_run_is_found(tmp_path: Path, root: CheckpointRoot, target: Path) -> None:
    draft = tiny_draft(target)
    save_draft(root, draft, 900)
    struck = save_draft(root, draft, 950, incarnation=Incarnation("c3" * 16))
    newest = save_draft(root, draft, 20, store_epoch=2, incarnation=Incarnation("b2" * 16))
    root.strike([struck.name], Strike(incarnation=Incarnation("d4" * 16), went_back_to_step=900))
    uncommitted = save_draft(root, draft, 30, store_epoch=2, incarnation=Incarnation("e5" * 16))
    (uncommitted / RECEIPT).unlink()
    assert find_checkpoint(tmp_path) == newest
    assert find_checkpoint(newest) == newest


def best_of(directory: Path, step: int) -> wire.EvaluationState:
    return wire.EvaluationState(
        best=wire.Best(directory=directory.name, step=step, training_step=step - 4, eval_loss=1.5)
    )


def test_best_checkpoint_is_the_one_that_the_newest_one_names(
    tmp_path: Path, root: CheckpointRoot, target: Path
) -> None:
    draft = tiny_draft(target)
    first = save_draft(root, draft, 20)
    save_draft(root, draft, 30, evaluation=best_of(first, 20))
    assert find_best(tmp_path) == first
    assert open_source(tmp_path, best=True).directory == first
    assert open_source(tmp_path).directory != first


def test_best_checkpoint_is_not_guessed(tmp_path: Path, root: CheckpointRoot, target: Path) -> None:
    draft = tiny_draft(target)
    first = save_draft(root, draft, 20)
    with pytest.raises(UserError, match="knows no best checkpoint"):
        find_best(tmp_path)
    newest = save_draft(root, draft, 30, evaluation=best_of(first, 20))
    root.delete([first.name])
    with pytest.raises(UserError, match="is not there"):
        find_best(newest)


def test_directory_that_was_never_committed_is_refused(root: CheckpointRoot, target: Path) -> None:
    directory = save_draft(root, tiny_draft(target), 7)
    (directory / RECEIPT).unlink()
    with pytest.raises(UserError, match="never committed"):
        open_source(directory)


@pytest.mark.parametrize("file", ["rank-00000-of-00001.safetensors", "layout.json", "manifest.json"])
def test_flipped_bit_anywhere_stops_the_export(tmp_path: Path, root: CheckpointRoot, target: Path, file: str) -> None:
    directory = save_draft(root, tiny_draft(target), 7)
    raw = bytearray((directory / file).read_bytes())
    raw[len(raw) // 2] ^= 1
    (directory / file).write_bytes(raw)
    with pytest.raises(Corrupt):
        open_source(directory)


def test_weights_that_are_not_the_manifests_are_refused(root: CheckpointRoot, target: Path) -> None:
    directory = save_draft(root, tiny_draft(target), 7)
    manifest = manifests.decode((directory / MANIFEST).read_bytes())
    raw = manifests.encode(msgspec.structs.replace(manifest, weights_sha256="0" * 64))
    (directory / MANIFEST).write_bytes(raw)
    receipt = manifests.decode_receipt((directory / RECEIPT).read_bytes())
    forged = msgspec.structs.replace(receipt, manifest_digest=manifests.digest_of(raw))
    (directory / RECEIPT).write_bytes(msgspec.json.encode(forged))
    with pytest.raises(Corrupt, match="weights_sha256"):
        open_source(directory)


@pytest.mark.parametrize("key", ["fc.weight", "norm.weight", "lm_head.weight", "midlayer.self_attn.q_proj.weight"])
def test_missing_key_stops_the_export_and_leaves_nothing(
    tmp_path: Path, root: CheckpointRoot, target: Path, key: str
) -> None:
    draft = tiny_draft(target)
    pieces = [piece for piece in draft_pieces(draft) if piece.name != f"weights/{key}"]
    source = open_source(save_draft(root, draft, 7, pieces=pieces))
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        export_draft(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_state_is_no_draft(tmp_path: Path, root: CheckpointRoot) -> None:
    request = save_checkpoint(root, 3)
    with pytest.raises(UserError, match="fake state"):
        open_source(root.directory(request.directory))


def test_embedding_must_be_that_of_the_drafts_target(tmp_path: Path, root: CheckpointRoot, target: Path) -> None:
    source = open_source(save_draft(root, tiny_draft(target), 7))
    with pytest.raises(UserError, match="give the target's folder"):
        export_draft(source, tmp_path / "out", layout="huggingface")
    other = TargetConfig(model=str(make_tiny_target(tmp_path / "wide", hidden=64)))
    with pytest.raises(UserError, match="the target it was trained for"):
        export_draft(source, tmp_path / "out", layout="huggingface", target=other)


def test_existing_folder_and_unknown_layout_are_refused(tmp_path: Path, root: CheckpointRoot, target: Path) -> None:
    source = open_source(save_draft(root, tiny_draft(target), 7))
    with pytest.raises(UserError, match="exists"):
        export_draft(source, tmp_path)
    with pytest.raises(UserError, match="none of"):
        export_draft(source, tmp_path / "out", layout="onnx")


def test_half_an_export_from_before_is_replaced(tmp_path: Path, root: CheckpointRoot, target: Path) -> None:
    source = open_source(save_draft(root, tiny_draft(target), 7))
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "junk").write_text("x")
    done = export_draft(source, tmp_path / "out")
    assert {path.name for path in done.path.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_folder_that_is_no_exported_draft_is_one_sentence(
    tmp_path: Path, root: CheckpointRoot, target: Path, file: str
) -> None:
    folder = exported(root, tiny_draft(target), tmp_path / "out", target)
    (folder / file).unlink()
    with pytest.raises(UserError):
        read_exported(folder)
