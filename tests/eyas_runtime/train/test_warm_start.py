"""Claims about a process in waiting: what a rank needs up to its first step was imported before it is called."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

FIRST_STEP = """
import importlib, sys
from eyas_runtime.supervisor.spare import HEAVY

module = "eyas_runtime.train.consume"
for name in (module, *HEAVY[module]):
    importlib.import_module(name)
waiting = set(sys.modules)

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from eyas_contract.config import CheckpointConfig, TrainingConfig
from eyas_runtime.train import determinism

determinism.configure(TrainingConfig(window_size=2, checkpoint=CheckpointConfig(path="/c")), 0)
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
layer = fully_shard(torch.nn.Linear(8, 8), mesh=init_device_mesh("cpu", (1,)))
optimizer = torch.optim.AdamW(layer.parameters())
layer(torch.ones(2, 8)).sum().backward()
optimizer.step()
print(*sorted(name for name in set(sys.modules) - waiting if name.startswith("torch.")))
"""


def test_a_rank_in_waiting_has_imported_what_its_first_step_needs() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_STEP], capture_output=True, text=True, check=True, timeout=300)
    late = done.stdout.split()
    assert len(late) < 20, late  # More than a hundred without the two packages that shards and optimizers import late.
