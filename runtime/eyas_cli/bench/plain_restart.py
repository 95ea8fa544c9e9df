"""One rank of the plain arm of `eyas bench recovery`: what a restart by torchrun does before its first step."""

import sys
from pathlib import Path

import torch
from torch import distributed

from eyas_runtime.export.source import open_source


def main() -> None:
    """Join the group that torchrun's environment describes, load the newest checkpoint, meet the others."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    open_source(Path(sys.argv[1]))
    distributed.barrier()
    distributed.destroy_process_group()


main()
