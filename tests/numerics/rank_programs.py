"""What spawned ranks run: a few optimizer windows of a tiny sharded draft."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from eyas_runtime.core.packing import packs
from eyas_runtime.core.windows import share
from eyas_runtime.train.eagle3.batch import Captured, normalise
from eyas_runtime.train.eagle3.optim import OptimConfig, make_optimizer, optimizer_step
from eyas_runtime.train.eagle3.parallelize import ParallelConfig, make_mesh, parallelize, set_last_micro_batch
from eyas_runtime.train.eagle3.schedule import ScheduleConfig
from eyas_runtime.train.eagle3.teacher import target_head
from eyas_runtime.train.eagle3.tensor_slices import is_told_elsewhere
from numerics.cases import a_case, a_sample
from numerics.grid_programs import SHAPE, grid_here, split_draft, whole

LENGTHS = (9, 5, 12, 7, 3, 8)


def windows(
    rank: int,
    world: int,
    steps: int,
    micro: int,
    compute: str = "float32",
    sequence: int = 1,
    tensor: int = 1,
    packing: int | None = None,
) -> dict[str, Tensor]:
    """Train `steps` windows of six samples in micro-batches of `micro` places, or in packs of `packing` tokens.

    Returns the first window's full gradients before clipping (`grad.*`), the norms, and the final weights.
    """
    case = a_case(**SHAPE)
    parallel = ParallelConfig(compute=compute)  # type: ignore[arg-type]
    grid = grid_here(sequence, tensor)
    assert grid.shard is not None
    draft = split_draft(case, grid, torch.float32)
    shapes = {name: parameter.shape for name, parameter in case.draft.named_parameters()}
    parallelize(draft, make_mesh(grid.shard, "cpu"), parallel)
    rank, world = rank // (sequence * tensor), world // (sequence * tensor)
    optim = OptimConfig(schedule=ScheduleConfig(learning_rate=0.01, total_steps=10, warmup_ratio=0.2))
    optimizer = make_optimizer(draft, optim)
    head = target_head(case.head, case.vocab, dtype=torch.float32, line=grid.tensor)
    out: dict[str, Tensor] = {}
    norms = []
    for step in range(steps):
        samples = [_float(a_sample(case.config, length, seed=step)) for length in LENGTHS]
        turns = (
            share(rank=rank, world=world, places=len(LENGTHS), micro_batch_size=micro)
            if packing is None
            else packs(LENGTHS, world=world, max_tokens=packing)[rank]
        )
        for number, turn in enumerate(turns):
            set_last_micro_batch(draft, number == len(turns) - 1)
            places = [None if place is None else samples[place] for place in turn]
            batch = normalise(places, case.config, packed=packing is not None)
            draft(batch, head, float(sum(LENGTHS))).loss.backward()
        if step == 0:
            for name, parameter in draft.named_parameters():
                assert isinstance(parameter.grad, DTensor)
                out[f"grad.{name}"] = whole(parameter.grad, shapes[name], grid).clone()
        norms.append(
            optimizer_step(
                draft,
                optimizer,
                optim,
                step,
                group=grid.world,
                counted=lambda name: not is_told_elsewhere(name, grid.tensor),
            )
        )
    out["norms"] = torch.tensor(norms, dtype=torch.float64)
    for name, parameter in draft.named_parameters():
        assert isinstance(parameter, DTensor)
        out[f"weight.{name}"] = whole(parameter, shapes[name], grid)
    return out


def holes_on_rank_zero(rank: int, world: int) -> dict[str, Tensor]:
    """Rank 0 has nothing but holes; the others hold one sample each. Returns the full gradients."""
    case = a_case()
    draft = case.draft.float()
    group = dist.group.WORLD
    assert group is not None
    parallelize(draft, make_mesh(group, "cpu"), ParallelConfig())
    head = target_head(case.head, case.vocab, dtype=torch.float32)
    place = None if rank == 0 else _float(a_sample(case.config, LENGTHS[rank]))
    draft(normalise([place], case.config), head, 1.0).loss.backward()
    out = {}
    for name, parameter in draft.named_parameters():
        assert isinstance(parameter.grad, DTensor)
        out[name] = parameter.grad.full_tensor()
    return out


def _float(sample: Captured) -> Captured:
    return Captured(
        input_ids=sample.input_ids,
        loss_mask=sample.loss_mask,
        aux_hidden_state=sample.aux_hidden_state.float(),
        hidden_state=sample.hidden_state.float(),
    )
