"""A real Mooncake pool on loopback addresses of its own: one master, any number of store nodes, ended by process id."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eyas_contract.errors import EyasError
from eyas_runtime.features.blobs.mooncake import MooncakeBlobStore
from eyas_runtime.features.blobs.mooncake_admin import MooncakeAdmin
from eyas_runtime.features.blobs.mooncake_client import ClientSettings

START_SECONDS = 30.0
MIB = 1 << 20


def wait_until(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Poll `condition` until it holds; fails the test when it does not within `seconds`."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"not reached within {seconds} s"
        time.sleep(0.02)


class Pool:
    """Processes of one pool, and clients of it."""

    def __init__(self, folder: Path, *, lease_milliseconds: int = 300, client_ttl_seconds: int = 10) -> None:
        self.folder = folder
        self.subnet = f"127.{random.SystemRandom().randrange(64, 250)}.{os.getpid() % 250}"
        self.master_host = f"{self.subnet}.1"
        self.rpc_port, self.admin_port = free_ports(self.master_host, 2)
        self._lease_milliseconds = lease_milliseconds
        self._client_ttl_seconds = client_ttl_seconds
        self._hosts = iter(range(2, 250))
        self.master: subprocess.Popen[bytes] | None = None
        self.nodes: list[subprocess.Popen[bytes]] = []
        self._clients: list[MooncakeBlobStore] = []

    @property
    def master_address(self) -> str:
        return f"{self.master_host}:{self.rpc_port}"

    @property
    def admin_address(self) -> str:
        return f"{self.master_host}:{self.admin_port}"

    def admin(self) -> MooncakeAdmin:
        return MooncakeAdmin(self.admin_address, deadline_seconds=5.0)

    def start_master(self) -> None:
        self.master = self._spawn(
            "master",
            "eyas_runtime.features.blobs.mooncake_master",
            f"--host={self.master_host}",
            f"--rpc-port={self.rpc_port}",
            f"--admin-port={self.admin_port}",
            f"--lease-milliseconds={self._lease_milliseconds}",
            f"--client-ttl-seconds={self._client_ttl_seconds}",
            "--discard-seconds=3",
        )
        self._wait_serving()

    def kill_master(self) -> None:
        """SIGKILL the supervisor of the master; the binary dies with it."""
        assert self.master is not None
        self.master.kill()
        self.master.wait()
        wait_until(lambda: not self._listens())

    def start_node(self, segment_bytes: int = 256 * MIB, *, drain_seconds: float = 0.0) -> subprocess.Popen[bytes]:
        ready = self.folder / f"node-{len(self.nodes)}.ready"
        node = self._spawn(
            f"node-{len(self.nodes)}",
            "eyas_runtime.features.blobs.mooncake_node",
            f"--master={self.master_address}",
            f"--admin={self.admin_address}",
            f"--hostname={self.subnet}.{next(self._hosts)}",
            f"--segment-bytes={segment_bytes}",
            f"--ready-file={ready}",
            f"--drain-seconds={drain_seconds}",
        )
        self.nodes.append(node)
        wait_until(lambda: ready.exists() or node.poll() is not None)
        assert node.poll() is None, (self.folder / f"node-{len(self.nodes) - 1}.log").read_text()
        return node

    def settings(self) -> ClientSettings:
        """Of a client with its own loopback address."""
        return ClientSettings(master_address=self.master_address, local_hostname=f"{self.subnet}.{next(self._hosts)}")

    def client(self, *, deadline_seconds: float = 10.0) -> MooncakeBlobStore:
        client = MooncakeBlobStore(self.settings(), admin_address=self.admin_address, deadline_seconds=deadline_seconds)
        self._clients.append(client)
        return client

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        for process in [*self.nodes, self.master]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    def _spawn(self, name: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=log, stderr=log)

    def _listens(self) -> bool:
        try:
            socket.create_connection((self.master_host, self.rpc_port), 0.5).close()
        except OSError:
            return False
        return True

    def _wait_serving(self) -> None:
        def serving() -> bool:
            try:
                return self._listens() and self.admin().serving()
            except EyasError:
                return False

        wait_until(serving)


@contextmanager
def running_pool(folder: Path, *, nodes: int = 1, segment_bytes: int = 256 * MIB, **options: int) -> Iterator[Pool]:
    """A pool with its master and `nodes` store nodes up; everything is gone afterwards."""
    pool = Pool(folder, **options)
    try:
        pool.start_master()
        for _ in range(nodes):
            pool.start_node(segment_bytes)
        yield pool
    finally:
        pool.stop()


def free_ports(host: str, count: int) -> list[int]:
    """Different ports that nobody listens on at `host` now."""
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def pause(process: subprocess.Popen[bytes]) -> None:
    """SIGSTOP."""
    process.send_signal(signal.SIGSTOP)
