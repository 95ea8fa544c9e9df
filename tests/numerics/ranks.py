"""Spawns gloo ranks as subprocesses that run one program each and hand tensors back as safetensors.

The parent owns the TCPStore, so no port is guessed, and ends every rank that outlives its time by its own handle.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

TESTS = Path(__file__).resolve().parent.parent
SECONDS_MAX = 240
_MAIN = "import sys; sys.path.insert(0, sys.argv[1]); from numerics.rank_main import main; main(sys.argv[2:])"


def run_ranks(program: str, world: int, folder: Path, **arguments: object) -> list[dict[str, Tensor]]:
    """Run `module:function` on `world` ranks; returns each rank's tensors, rank 0 first.

    The function is called as f(rank, world, **arguments) inside a process group and returns named tensors.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"rank{rank}.safetensors" for rank in range(world)]
    processes = [
        subprocess.Popen(
            [
                sys.executable, "-c", _MAIN, str(TESTS), program, str(store.port), str(rank), str(world),
                str(files[rank]), json.dumps(arguments),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=SECONDS_MAX)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return [load_file(file) for file in files]


def equal_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """True if both hold the same names and the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
