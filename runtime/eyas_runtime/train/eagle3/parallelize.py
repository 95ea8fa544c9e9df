"""FSDP2 over one dimension of ranks, with gradients that are plain sums.

The loss is already divided by the window's denominator, which counts the samples of all ranks, so each rank's
gradient is its share of one sum: FSDP's division by the world size is turned off, and with it every dependence of
the gradient on the width. One process takes the same path as many. The embedding is a buffer and the target's
output matrix an argument: neither is sharded, cast or saved.

One unit holds all parameters: the draft is one layer deep and every parameter is used from the first step to the
last, so smaller units would only gather the same bytes in more pieces. They stay gathered between forward and
backward for the same reason.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

ModelT = TypeVar("ModelT", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelConfig:
    """What parameters are computed with; masters and reductions are float32 in either case."""

    compute: Literal["float32", "bfloat16"] = "float32"

    @property
    def compute_dtype(self) -> torch.dtype:
        """What the draft and the target's output matrix compute in."""
        return torch.bfloat16 if self.compute == "bfloat16" else torch.float32


def make_mesh(group: dist.ProcessGroup, device_type: str) -> DeviceMesh:
    """One-dimensional mesh over an existing process group; `device_type` is `cpu` (gloo) or `cuda` (nccl)."""
    return DeviceMesh.from_group(group, device_type, mesh_dim_names=("shard",))


def parallelize(model: ModelT, mesh: DeviceMesh, config: ParallelConfig) -> ModelT:
    """Shard `model`'s parameters in place over `mesh` and return it; call after initialising, before the optimiser.

    Every rank must pass a model with the same parameters.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=config.compute_dtype if config.compute != "float32" else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    fully_shard(model, mesh=mesh, reshard_after_forward=False, mp_policy=policy)
    sharded = cast("FSDPModule", model)
    sharded.set_gradient_divide_factor(1.0)
    # Without this a factor of 1 becomes a premultiplied sum, which gloo does not know.
    sharded.set_force_sum_reduction_for_comms(True)
    return model


def set_last_micro_batch(model: nn.Module, last: bool) -> None:
    """Reduce gradients over ranks at the next backward only if it is the window's `last` one.

    Before that, gradients add up unreduced. Every rank must run the same number of micro-batches.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)


def forget_gathered(model: nn.Module) -> None:
    """Give back the gathered parameters after a forward without a backward, which would have done it: what the next
    step or a checkpoint meets are the shards."""
    if isinstance(model, FSDPModule):
        model.reshard()
