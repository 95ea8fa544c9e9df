"""What fixes the bits of a capture, as facts and one digest.

Two hosts whose facts are equal are promised to give equal bits; hosts that differ in any fact may not (an AVX2 and an
AVX-512 CPU give other bits for one matrix product). So every fact that has been seen to matter is here, and nothing
that may differ between restarts of the same pod (names, addresses, times).
"""

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import blake3
import msgspec
import torch
from torch.backends import cudnn, mkldnn

from eyas_contract.wire import Fingerprint


def device_facts(device: torch.device) -> dict[str, str]:
    """Model and instruction set of the device that computes, and the libraries that drive it."""
    facts = {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "torch": str(torch.__version__)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["device"] = properties.name
        facts["capability"] = f"{properties.major}.{properties.minor}"
        facts["cuda"] = str(torch.version.cuda)
        facts["cudnn"] = str(_call(cudnn.version))
        facts["cublas"] = os.environ.get("CUBLAS_WORKSPACE_CONFIG", "")
        facts["tf32"] = str(torch.backends.cuda.matmul.allow_tf32)
    else:
        facts["device"] = _cpu_model()
        facts["isa"] = torch.backends.cpu.get_cpu_capability()
        facts["mkldnn"] = str(_call(mkldnn.is_available))
        for name in ("MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
            if name in os.environ:
                facts[name] = os.environ[name]
    return facts


def fingerprint_of(facts: dict[str, str]) -> Fingerprint:
    """Facts with their digest (BLAKE3 of the sorted facts)."""
    ordered = dict(sorted(facts.items()))
    return Fingerprint(facts=ordered, digest=f"blake3:{blake3.blake3(msgspec.json.encode(ordered)).hexdigest()}")


def _call(function: Callable[[], object]) -> object:
    # torch does not annotate these two.
    return function()


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
