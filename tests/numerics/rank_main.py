"""Entry of one spawned rank: joins the group at the parent's store, runs the program, writes its tensors."""

import importlib
import json
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from safetensors.torch import save_file


def main(arguments: Sequence[str]) -> None:
    program, port, rank, world, file, keywords = arguments
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", int(port), is_master=False, wait_for_workers=False)
    dist.init_process_group(
        "gloo",
        store=dist.PrefixStore("ranks", store),
        rank=int(rank),
        world_size=int(world),
        timeout=timedelta(seconds=180),
    )
    module, function = program.split(":")
    tensors = getattr(importlib.import_module(module), function)(int(rank), int(world), **json.loads(keywords))
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)
    dist.barrier()
    dist.destroy_process_group()
