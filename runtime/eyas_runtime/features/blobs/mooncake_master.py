"""The Mooncake master of one job: the flags with which the wheel's binary must run for our promises to hold.

**Soft pins, and no eviction of soft-pinned objects.** Without any pin a full pool drops samples silently. Both kinds
of pin turn that into a refused put (-200), which is back-pressure. A hard pin lasts for ever, but an object under it
cannot be moved: draining its node blocks without end, so every rollout of a store node would lose its samples. A soft
pin ends after 24 hours (the most that the master grants) and lets a node be drained. Features live for minutes; one
that has waited for a day may be dropped by a full pool, is then a lost sample, and is captured again: nothing wrong is
trained. Soft pins are not kept in snapshots, which we never use: a restored master maps old keys to newer bytes.

The other choices: the `offset` allocator (the other one limits an object to 16 MB), ten seconds until a silent store
node is dropped (starved heartbeats drop healthy ones below that), ten seconds of read lease, and 30 s after which what
a dead writer began is discarded. Peers find each other by handshake, so no metadata server runs beside the master.
"""

import argparse
import ctypes
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eyas_contract import env
from eyas_contract.errors import Transient, UserError
from eyas_contract.exits import Exit
from eyas_runtime import files
from eyas_runtime.environment import required, required_path
from eyas_runtime.features.blobs.mooncake_admin import MooncakeAdmin
from eyas_runtime.process import run_role

LOG: Final = logging.getLogger("eyas.store.master")
BINARY: Final = "mooncake_master"
PROBE_SECONDS: Final = 0.5
PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterSettings:
    """Where a master listens, and its terms."""

    host: str
    """Address to bind; in a pod its own, locally one of 127.0.0.0/8."""
    rpc_port: int
    admin_port: int
    """Metrics and admin HTTP; asks for no credential, so a NetworkPolicy must guard it."""
    client_ttl_seconds: int = 10
    lease_milliseconds: int = 10_000
    """Read lease; must exceed three times the slowest transfer of one object."""
    discard_seconds: int = 30
    """When an unfinished put is forgotten, so that its key reads as missing."""
    release_seconds: int = 60
    """When its memory is free again: longer than any put of ours may take."""
    rpc_threads: int = 4


def find_binary() -> str:
    """Path of the master's binary. Raises `UserError` when Mooncake is not installed."""
    spec = importlib.util.find_spec("mooncake")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        candidate = Path(folder) / BINARY
        if os.access(candidate, os.X_OK):
            return str(candidate)
    found = shutil.which(BINARY)
    if found is None:
        raise UserError(f"{BINARY} is not installed; install eyas[mooncake], or use store backend SharedDirectory")
    return found


def master_argv(settings: MasterSettings) -> list[str]:
    """Command line of the master; it holds no secret."""
    return [
        find_binary(),
        f"--rpc_address={settings.host}",
        f"--rpc_port={settings.rpc_port}",
        f"--rpc_thread_num={settings.rpc_threads}",
        f"--metrics_host={settings.host}",
        f"--metrics_port={settings.admin_port}",
        "--enable_metric_reporting=false",
        f"--client_ttl={settings.client_ttl_seconds}",
        f"--default_kv_lease_ttl={settings.lease_milliseconds}",
        "--default_kv_soft_pin_ttl=24h",
        "--max_kv_soft_pin_ttl=24h",
        "--allow_evict_soft_pinned_objects=false",
        "--memory_allocator=offset",
        f"--put_start_discard_timeout_sec={settings.discard_seconds}",
        f"--put_start_release_timeout_sec={settings.release_seconds}",
        "--enable_snapshot=false",
        "--enable_snapshot_restore=false",
        "--logtostderr=true",
        "--minloglevel=1",
    ]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run_master(settings: MasterSettings, *, ready_file: Path | None = None) -> int:
    """Run the master until it ends or this process gets SIGTERM; `ready_file` exists while it serves.

    Returns the exit code for this process: TEMPORARY after SIGTERM, CRASH when the master ended by itself.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    child = subprocess.Popen(master_argv(settings), preexec_fn=_die_with_parent)  # noqa: S603, PLW1509 - argv is ours
    admin = MooncakeAdmin(f"{settings.host}:{settings.admin_port}", deadline_seconds=2.0)
    LOG.info("master %d started on %s:%d", child.pid, settings.host, settings.rpc_port)
    try:
        while child.poll() is None and not stop.wait(PROBE_SECONDS):
            if ready_file is not None:
                note_ready(ready_file, _serving(admin))
    finally:
        if ready_file is not None:
            note_ready(ready_file, False)
        if child.poll() is None:
            child.terminate()
        code = child.wait()
    LOG.info("master %d ended with %d", child.pid, code)
    return int(Exit.TEMPORARY if stop.is_set() else Exit.CRASH)


def note_ready(ready_file: Path, ready: bool) -> None:
    """Make `ready_file` exist exactly while `ready`."""
    if ready and not ready_file.exists():
        files.publish_bytes(ready_file, b"ready\n")
    elif not ready:
        with files.directory(ready_file.parent) as dir_fd:
            files.remove_at(dir_fd, ready_file.name)


def _serving(admin: MooncakeAdmin) -> bool:
    try:
        return admin.serving()
    except Transient:
        return False


def pod_arguments() -> list[str]:
    """The arguments of a master that a supervisor started: from the pod's environment."""
    ports = {"--rpc-port": str(env.MASTER_PORT), "--admin-port": str(env.MASTER_METRICS_PORT)}
    ready = {"--ready-file": str(required_path(os.environ, env.POD_DIRECTORY) / env.READY_FILE)}
    pairs = {"--host": required(os.environ, env.HOST_ADDRESS), **ports, **ready}
    return [word for pair in pairs.items() for word in pair]


def main() -> int:
    """`python -m eyas_runtime.features.blobs.mooncake_master`; without arguments, as a pod's role."""
    parser = argparse.ArgumentParser(description="Mooncake master of one job")
    parser.add_argument("--host", required=True)
    parser.add_argument("--rpc-port", type=int, required=True)
    parser.add_argument("--admin-port", type=int, required=True)
    parser.add_argument("--lease-milliseconds", type=int, default=10_000)
    parser.add_argument("--client-ttl-seconds", type=int, default=10)
    parser.add_argument("--discard-seconds", type=int, default=30)
    parser.add_argument("--ready-file", type=Path)
    given = parser.parse_args(sys.argv[1:] or pod_arguments())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = MasterSettings(
        host=given.host,
        rpc_port=given.rpc_port,
        admin_port=given.admin_port,
        lease_milliseconds=given.lease_milliseconds,
        client_ttl_seconds=given.client_ttl_seconds,
        discard_seconds=given.discard_seconds,
    )
    return run_master(settings, ready_file=given.ready_file)


if __name__ == "__main__":
    run_role(main)
