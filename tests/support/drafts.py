"""Real draft modules for the tiny target, their checkpoints as the ranks write them, and exported folders."""

from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np
import torch

from eyas_contract import wire
from eyas_contract.config import TargetConfig
from eyas_contract.ids import Incarnation
from eyas_runtime.checkpoint.pieces import Piece, whole
from eyas_runtime.checkpoint.store import CheckpointRoot
from eyas_runtime.checkpoint.writer import CheckpointWriter, Lineage, Save
from eyas_runtime.export import export_draft, open_source
from eyas_runtime.target_files import target_config
from eyas_runtime.train.draft_state import D2T
from eyas_runtime.train.eagle3.config import DraftConfig, LossConfig
from eyas_runtime.train.eagle3.model import Draft
from eyas_runtime.train.eagle3.parameters import initialise
from eyas_runtime.train.eagle3.vocab import VocabMap, build_vocab_map
from eyas_runtime.train.group import SoloGroup
from eyas_runtime.train.target_head import load_matrices
from support.checkpoints import INCARNATION, RecordingCommitter, state_at


def tiny_vocab(size: int, kept: int, *, seed: int = 0) -> VocabMap:
    """`kept` of `size` tokens, scattered."""
    return build_vocab_map(np.random.default_rng(seed).permutation(size), kept)


def tiny_draft(
    target: Path, *, vocab: VocabMap | None = None, newer: bool = False, seed: int = 0, spread: float = 0.2
) -> Draft:
    """An initialised draft for the target in `target`; `newer`: the 3.1 variant."""
    folder = TargetConfig(model=str(target))
    matrices = load_matrices(folder, dtype=torch.float32)
    vocab = vocab or tiny_vocab(len(matrices.embedding), 64, seed=seed)
    config = DraftConfig.from_target_config(
        {**target_config(folder), "initializer_range": spread},
        draft_vocab_size=len(vocab.d2t),
        max_position=96,
        fc_norm=newer,
        norm_output=newer,
    )
    draft = Draft(config, LossConfig(steps=4), matrices.embedding, vocab)
    initialise(draft, seed)
    return draft


def draft_pieces(draft: Draft) -> list[Piece]:
    """Weights and vocabulary map of an unsharded draft, as rank 0 of one rank holds them."""
    pieces = [
        whole(f"weights/{name}", "float32", tuple(parameter.shape), parameter.detach().numpy().tobytes())
        for name, parameter in draft.named_parameters()
    ]
    return [*pieces, whole(D2T, "int64", (len(draft.d2t),), draft.d2t.numpy().astype("<i8").tobytes())]


def save_draft(
    root: CheckpointRoot,
    draft: Draft,
    step: int,
    *,
    store_epoch: int = 1,
    incarnation: Incarnation = INCARNATION,
    trainer: str = "eagle3",
    pieces: list[Piece] | None = None,
    evaluation: wire.EvaluationState | None = None,
) -> Path:
    """Write a committed checkpoint of `draft`; returns its directory."""
    committer = RecordingCommitter()
    lineage = Lineage(
        attempt=1,
        incarnation=incarnation,
        store_epoch=store_epoch,
        trainer=trainer,
        config=asdict(draft.config),
        fingerprint="f",
    )
    state = msgspec.structs.replace(state_at(step), store_epoch=store_epoch)
    save = Save(
        step=step,
        pieces=draft_pieces(draft) if pieces is None else pieces,
        state=state,
        verdicts=(),
        evaluation=evaluation,
    )
    CheckpointWriter(root, lineage, SoloGroup(), committer).save(save)
    return root.directory(committer.requests[-1].directory)


def exported(root: CheckpointRoot, draft: Draft, output: Path, target: Path, *, layout: str = "huggingface") -> Path:
    """An exported folder of `draft`."""
    directory = save_draft(root, draft, 7)
    folder = TargetConfig(model=str(target))
    return export_draft(open_source(directory), output, layout=layout, target=folder).path
