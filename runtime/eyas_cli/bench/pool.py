"""A Mooncake pool of this machine's own for one benchmark: a master and a store node on loopback addresses."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from eyas_contract.env import MASTER_METRICS_PORT, MASTER_PORT
from eyas_contract.errors import Transient
from eyas_runtime.features.blobs.mooncake_client import ClientSettings

HOST = "127.83.250.1"
NODE = "127.83.250.2"
READY_SECONDS = 60.0


@contextlib.contextmanager
def local_pool(*, segment_bytes: int) -> Iterator[ClientSettings]:
    """Settings of a client of a fresh pool; the pool ends with the block. Raises `Transient` when it does not start."""
    rpc, admin = f"{HOST}:{MASTER_PORT}", f"{HOST}:{MASTER_METRICS_PORT}"
    module = "eyas_runtime.features.blobs"
    with tempfile.TemporaryDirectory(prefix="eyas-pool-") as folder, contextlib.ExitStack() as stack:
        ready = Path(folder)
        stack.enter_context(_process(
            ready / "master.log", f"{module}.mooncake_master", "--host", HOST, "--rpc-port", str(MASTER_PORT),
            "--admin-port", str(MASTER_METRICS_PORT), "--ready-file", str(ready / "master"),
        ))  # fmt: skip
        _wait_for(ready / "master")
        stack.enter_context(_process(
            ready / "node.log", f"{module}.mooncake_node", "--master", rpc, "--admin", admin, "--hostname", NODE,
            "--segment-bytes", str(segment_bytes), "--ready-file", str(ready / "node"), "--drain-seconds", "0",
        ))  # fmt: skip
        _wait_for(ready / "node")
        yield ClientSettings(master_address=rpc, local_hostname="127.83.250.3")


@contextlib.contextmanager
def _process(log: Path, *arguments: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 our own modules
            [sys.executable, "-m", *arguments], stdout=output, stderr=output
        )
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
        process.kill()
        process.wait()


def _wait_for(ready: Path) -> None:
    ends = time.monotonic() + READY_SECONDS
    while not ready.exists():
        if time.monotonic() > ends:
            raise Transient(f"the pool's {ready.name} was not ready within {READY_SECONDS:.0f} s")
        time.sleep(0.05)
