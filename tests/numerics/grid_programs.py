"""What the ranks of a grid run: random batches in float64 without shards, and optimizer windows with them."""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from eyas_runtime.checkpoint import manifest as manifests
from eyas_runtime.checkpoint.names import MANIFEST
from eyas_runtime.checkpoint.reader import CheckpointReader
from eyas_runtime.checkpoint.store import CheckpointRoot
from eyas_runtime.checkpoint.writer import CheckpointWriter, Save
from eyas_runtime.train import draft_state
from eyas_runtime.train.eagle3.batch import Captured, normalise
from eyas_runtime.train.eagle3.config import LkConfig, LossConfig
from eyas_runtime.train.eagle3.grid import Grid, make_grid
from eyas_runtime.train.eagle3.model import Draft
from eyas_runtime.train.eagle3.optim import OptimConfig, make_optimizer, optimizer_step
from eyas_runtime.train.eagle3.parallelize import ParallelConfig, make_mesh, parallelize
from eyas_runtime.train.eagle3.schedule import ScheduleConfig
from eyas_runtime.train.eagle3.teacher import target_head
from eyas_runtime.train.eagle3.tensor_slices import is_told_elsewhere
from eyas_runtime.train.rendezvous import TorchGroup
from numerics.cases import Case, a_case, a_sample
from support.checkpoints import JOB, RecordingCommitter, lineage, state_at

SHAPE = {"num_heads": 4, "num_kv_heads": 2, "draft_vocab_size": 18, "vocab_size": 31}
"""Heads, inner width and draft vocabulary that two tensor ranks can share; the rest of the vocabulary is odd."""


def a_random_case(seed: int) -> tuple[Case, list[Captured | None]]:
    """A draft and a batch of random lengths, masks and holes; everything follows from `seed`."""
    chance = random.Random(seed)
    lk = (None, None, LkConfig(kind="alpha"), LkConfig(kind="lambda"))[seed % 4]
    loss = LossConfig(steps=chance.randint(1, 5), decay=0.7, lk=lk)
    newer = seed % 3 == 1
    case = a_case(loss, seed=seed, fc_norm=newer, norm_output=newer, **SHAPE)
    samples: list[Captured | None] = []
    for place in range(chance.randint(1, 3)):
        length = chance.randint(1, 17)
        mask = [0] * length if chance.random() < 0.15 else None
        samples.append(None if chance.random() < 0.2 else a_sample(case.config, length, seed=place, mask=mask))
    if seed == 0:
        samples = [None, None]
    return case, samples


def split_draft(case: Case, grid: Grid, dtype: torch.dtype) -> Draft:
    """This rank's part of the case's draft."""
    draft = Draft(case.config, case.loss, case.embedding.to(dtype), case.vocab, grid).to(dtype)
    full = dict(case.draft.named_parameters())
    draft_state.load_weights(draft, lambda name: full[name].detach())
    return draft


def grid_here(sequence: int, tensor: int) -> Grid:
    world = dist.group.WORLD
    assert world is not None
    return make_grid(world, sequence=sequence, tensor=tensor, timeout_seconds=120)


def whole(tensor: Tensor, shape: Sequence[int], grid: Grid) -> Tensor:
    """The full tensor of `shape` from this rank's part of it, by the dimension that is shorter here."""
    part = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    split = [i for i, (here, full) in enumerate(zip(part.shape, shape, strict=True)) if here != full]
    if not split:
        return part
    parts = [torch.empty_like(part.contiguous()) for _ in range(grid.tensor.size)]
    dist.all_gather(parts, part.contiguous(), group=grid.tensor.group)
    return torch.cat(parts, dim=split[0])


def random_batches(rank: int, world: int, sequence: int, tensor: int, cases: int) -> dict[str, Tensor]:
    """Loss, counts and full gradients of `cases` random batches that all ranks share, summed over sequence ranks."""
    grid = grid_here(sequence, tensor)
    out: dict[str, Tensor] = {}
    for seed in range(cases):
        case, samples = a_random_case(seed)
        draft = split_draft(case, grid, torch.float64)
        head = target_head(case.head, case.vocab, dtype=torch.float64, line=grid.tensor)
        result = draft(normalise(samples, case.config, packed=seed % 2 == 1), head, 3.0)
        result.loss.backward()
        found = {"loss": result.loss.detach(), "counts": result.counts}
        shapes = {name: p.shape for name, p in case.draft.named_parameters()}
        for name, value in found.items():
            if grid.shard is not None:
                dist.all_reduce(value, group=grid.shard)
            out[f"{seed}.{name}"] = value
        for name, parameter in draft.named_parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad, group=grid.shard)
            out[f"{seed}.grad.{name}"] = whole(parameter.grad, shapes[name], grid)
    return out


def carried(
    rank: int, world: int, sequence: int, tensor: int, root: str, step: int, before: str = ""
) -> dict[str, Tensor]:
    """Load the checkpoint `before` (without one: train two windows), save at this layout as `step`.

    Returns the whole weights and moments.
    """
    grid = grid_here(sequence, tensor)
    assert grid.shard is not None
    assert grid.world is not None
    case = a_case(seed=3, **SHAPE)
    draft = split_draft(case, grid, torch.float32)
    shapes = {name: p.shape for name, p in case.draft.named_parameters()}
    parallelize(draft, make_mesh(grid.shard, "cpu"), ParallelConfig())
    optim = OptimConfig(schedule=ScheduleConfig(learning_rate=0.01, total_steps=10))
    optimizer = make_optimizer(draft, optim)
    draft_state.prepare_optimizer(draft, optimizer)
    d2t = [int(offset) for offset in case.vocab.d2t]
    folder = CheckpointRoot(Path(root), JOB)
    if before:
        digest = manifests.digest_of((folder.directory(before) / MANIFEST).read_bytes())
        with CheckpointReader(folder.directory(before), manifest_digest=digest) as reader:
            draft_state.load(draft, optimizer, d2t, reader)
    else:
        head = target_head(case.head, case.vocab, dtype=torch.float32, line=grid.tensor)
        for window in range(2):
            draft(normalise([a_sample(case.config, 12, seed=window)], case.config), head, 5.0).loss.backward()
            optimizer_step(
                draft, optimizer, optim, window, group=grid.world,
                counted=lambda name: not is_told_elsewhere(name, grid.tensor),
            )  # fmt: skip
    pieces = draft_state.pieces(draft, optimizer, d2t, rank)
    writer = CheckpointWriter(folder, lineage(), TorchGroup(grid.world), RecordingCommitter() if rank == 0 else None)
    writer.save(Save(step=step, pieces=pieces, state=state_at(step), verdicts=()))
    out = {}
    for name, parameter in draft.named_parameters():
        state = optimizer.state[parameter]
        for kind, held in (("weight", parameter), ("exp_avg", state["exp_avg"]), ("exp_avg_sq", state["exp_avg_sq"])):
            out[f"{kind}.{name}"] = whole(held.detach(), shapes[name], grid)
        out[f"updates.{name}"] = state["step"]
    return out
