"""AdamW over the draft's (possibly sharded) float32 parameters, and clipping by the global norm.

Both are elementwise over local shards but for one sum, the norm: each rank's sum of squares, one reduction of one
float64 scalar. Equal inputs give equal bits.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from eyas_runtime.train.eagle3.schedule import ScheduleConfig, learning_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """AdamW and clipping."""

    schedule: ScheduleConfig
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 0.5


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the model's parameters in their order; build it after sharding, load its state afterwards."""
    return torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=learning_rate(config.schedule, 0),
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


def optimizer_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: OptimConfig,
    step: int,
    *,
    group: dist.ProcessGroup | None = None,
    counted: Callable[[str], bool] = lambda name: True,
) -> float:
    """Clip, update with the rate of window `step` (0-based), clear the gradients; returns the norm before clipping.

    A norm that is not finite changes nothing: the gradients are cleared and the norm is returned for the caller to
    judge. `group` is the one that the parameters are sharded over; None for one process. `counted` says of which
    parameters this rank's shards enter the norm, where several ranks have the same ones.
    """
    silent = {parameter for name, parameter in model.named_parameters() if not counted(name)}
    norm = clip_gradients(model.parameters(), config.max_grad_norm, group=group, silent=silent)
    if norm.isfinite():
        for parameters in optimizer.param_groups:
            parameters["lr"] = learning_rate(config.schedule, step)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(norm)


def clip_gradients(
    parameters: Iterable[nn.Parameter],
    max_norm: float,
    *,
    group: dist.ProcessGroup | None = None,
    silent: Collection[nn.Parameter] = frozenset(),
) -> Tensor:
    """Scale all gradients in place to a global L2 norm of at most `max_norm`; returns the norm before (float64).

    Sharded gradients (DTensor) count each rank's shard, plain ones are taken as whole on one process.
    `silent` ones are scaled, but another rank adds them to the norm. A norm that is not finite leaves the gradients
    as they are.
    """
    present = [(p, _local(p.grad)) for p in parameters if p.grad is not None]
    local = [gradient for _, gradient in present]
    heard = [gradient for p, gradient in present if p not in silent and gradient.numel()]
    device = local[0].device if local else torch.device("cpu")
    squares = torch.zeros((), dtype=torch.float64, device=device)
    for norm in torch._foreach_norm(heard) if heard else ():
        squares = squares + norm.to(torch.float64).square()
    if group is not None:
        dist.all_reduce(squares, group=group)
    total = squares.sqrt()
    scale = float(max_norm / (total + 1e-6))
    if total.isfinite() and scale < 1.0 and local:
        torch._foreach_mul_(local, scale)
    return total


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
