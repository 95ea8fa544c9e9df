"""`eyas doctor`: is this machine, and is this run, able to work? One line a check, each with what to do about it.

Checks never change anything and never need a running job; those that would import torch or Mooncake do so in a child
process, so that a broken library shows as a line and not as a crash.
"""

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from eyas_cli.checks import Check, tell
from eyas_cli.runs import Run
from eyas_contract.env import MASTER_PORT, METADATA_PORT
from eyas_contract.errors import Corrupt, UserError
from eyas_runtime.features.blobs.locked_memory import ADVICE, lockable_bytes

RDMA_DEVICES = Path("/sys/class/infiniband")
DISK_BYTES_MIN = 5 << 30
MEMORY_BYTES_MIN = 6 << 30
ROOT_MARKER = "eyas-checkpoints.json"
PROBE_SECONDS = 120
"""A cold import of torch from a slow disk."""


def machine() -> Iterator[Check]:
    """Checks of the machine itself."""
    version = sys.version_info
    yield Check("python", "ok" if version >= (3, 11) else "error", f"{version.major}.{version.minor}.{version.micro}")
    yield _package("torch", "eyas[train]")
    yield _package("transformers", "eyas[capture]")
    yield _imports("mooncake", "from mooncake.store import MooncakeDistributedStore", "install libibverbs1 librdmacm1 "
                   "libnuma1 libcurl4, or use store.backend: SharedDirectory")  # fmt: skip
    yield _imports("sqlite", "import sqlite3; assert sqlite3.sqlite_version_info >= (3, 37), sqlite3.sqlite_version",
                   "SQLite 3.37 or newer is needed for STRICT tables")  # fmt: skip
    yield _memory()
    yield locked_memory()
    yield _disk(Path.home())
    yield _loopback("127.83.1.1", METADATA_PORT)
    yield _loopback("127.83.1.1", MASTER_PORT)


def run_folder(workdir: Path) -> Iterator[Check]:
    """Checks of one run's folder."""
    if not workdir.is_dir():
        yield Check("workdir", "error", f"{workdir} is not a folder; start with eyas local run JOB.yaml --workdir DIR")
        return
    yield _disk(workdir)
    try:
        run = Run(workdir)
    except UserError as error:
        yield Check("run", "warning", str(error))
        return
    yield _files(run)
    for claim in sorted((workdir / "claims").glob("metadata-*")):
        yield _database(claim / "metadata.sqlite")
    for marker in sorted((workdir / "claims").glob(f"checkpoints/*/{ROOT_MARKER}")):
        yield from _checkpoints(marker.parent)


def report(workdir: Path | None, *, as_json: bool) -> int:
    """Print every check; the exit code is 78 when one of them is an error."""
    return tell([*machine(), *(run_folder(workdir) if workdir else ())], as_json=as_json)


def _package(name: str, extra: str) -> Check:
    try:
        return Check(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "error", f"not installed: pip install '{extra}'")


def _imports(name: str, statement: str, advice: str) -> Check:
    try:
        done = subprocess.run(  # noqa: S603 our own interpreter and statement
            [sys.executable, "-c", statement], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Check(name, "error", f"importing took more than {PROBE_SECONDS} s")
    if done.returncode == 0:
        return Check(name, "ok", "loads")
    reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return Check(name, "error", f"{reason[0][:160]}: {advice}")


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    enough = total >= MEMORY_BYTES_MIN
    return Check(
        "memory", "ok" if enough else "warning", f"{total >> 30} GiB" + ("" if enough else ", the demo wants 6")
    )


def locked_memory(devices: Path = RDMA_DEVICES) -> Check:
    """RDMA locks all memory that it registers; without a device the limit holds for nobody."""
    bound = lockable_bytes()
    if bound is None:
        return Check("locked memory", "ok", "no limit")
    if not devices.is_dir() or not any(devices.iterdir()):
        return Check("locked memory", "ok", f"{bound} bytes, and no RDMA device")
    return Check("locked memory", "warning", f"RLIMIT_MEMLOCK is {bound} bytes, too little for RDMA: {ADVICE}")


def _disk(path: Path) -> Check:
    free = shutil.disk_usage(path).free
    enough = free >= DISK_BYTES_MIN
    advice = "" if enough else f": under {DISK_BYTES_MIN >> 30} GiB, checkpoints may not fit"
    return Check(f"disk {path}", "ok" if enough else "warning", f"{free >> 30} GiB free{advice}")


def _loopback(address: str, port: int) -> Check:
    """Local pods each have a loopback address of their own; Linux gives all of 127.0.0.0/8 without set-up."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return Check(f"port {port}", "warning", f"{address}:{port} cannot be bound: {error.strerror}")
    return Check(f"port {port}", "ok", f"{address}:{port} is free")


def _files(run: Run) -> Check:
    """The run's own records."""
    try:
        ended = run.result().get("state", "")
        state = run.typed_status().state or "Pending"
        run.processes()
    except Corrupt as error:
        return Check("run", "error", str(error))
    return Check("run", "ok", f"the run ended: {ended}" if ended else f"the run is {state}")


def _checkpoints(root: Path) -> Iterator[Check]:
    from eyas_runtime.checkpoint.inspection import inspect

    for directory, problem in inspect(root):
        advice = ": it is not used; the run goes back to the newest sound one"
        text = f"{directory} is damaged ({problem}){advice}" if problem else f"{directory.name} is sound"
        yield Check("checkpoint", "error" if problem else "ok", text)


def _database(path: Path) -> Check:
    from eyas_runtime.metadata.offline import inspect

    problem = inspect(path)
    return Check("database", "error" if problem else "ok", problem or f"{path} is sound")
