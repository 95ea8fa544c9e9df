"""A store node: the light process that lends memory to the pool, so that no other process's death loses data.

It does nothing else: starved heartbeats would make the master drop it with all its objects. It joins when the master
answers, says it is ready while the master lists its segment, rejoins by itself after the master came back, and on
SIGTERM asks the master to move its objects to the other nodes before it leaves. What cannot be moved in time is lost to
the store and captured again.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from eyas_contract import env
from eyas_contract.config import read_config
from eyas_contract.errors import Transient, UserError
from eyas_contract.exits import Exit
from eyas_runtime.environment import required, required_path, whole_number
from eyas_runtime.features.blobs.mooncake_admin import MooncakeAdmin
from eyas_runtime.features.blobs.mooncake_client import ClientSettings, MooncakeClient
from eyas_runtime.features.blobs.mooncake_master import note_ready
from eyas_runtime.process import run_role

LOG: Final = logging.getLogger("eyas.store.node")
TICK_SECONDS: Final = 0.5
LEAVE_SECONDS: Final = 8
"""Of the pod's grace period: kept for unmounting after the drain, before the supervisor kills."""
DRAIN_CONCURRENCY: Final = 64
"""Objects moved at a time; the master's own default of a few takes twice as long."""


class StoreNode:
    """One node: join, be ready, drain, leave."""

    def __init__(self, settings: ClientSettings, admin: MooncakeAdmin, *, drain_seconds: float) -> None:
        self._settings = settings
        self._admin = admin
        self._drain_seconds = drain_seconds
        self._client: MooncakeClient | None = None
        self.ready = False

    def step(self) -> None:
        """Join if not yet joined, then learn whether the master lists this segment."""
        try:
            if self._client is None:
                self._client = MooncakeClient(self._settings)
                LOG.info("joined as %s with %d bytes", self._client.hostname(), self._settings.segment_bytes)
            ready = self._client.hostname() in self._admin.segments()
        except Transient as error:
            ready = False
            LOG.warning("%s", error)
        if ready != self.ready:
            LOG.info("ready" if ready else "not ready: the master does not list this segment")
        self.ready = ready

    def leave(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Move the objects to other nodes as far as time allows, then unmount."""
        self.ready = False
        if self._client is None:
            return
        try:
            self._drain(self._client.hostname(), sleep)
        except Transient as error:
            LOG.warning("not drained, the objects on this node are lost to the store: %s", error)
        self._client.close()
        self._client = None
        LOG.info("left the pool")

    def _drain(self, segment: str, sleep: Callable[[float], None]) -> None:
        others = [name for name in self._admin.segments() if name != segment]
        if not others or self._drain_seconds <= 0:
            LOG.warning("not drained: there is no other node" if not others else "not drained: no time was given")
            return
        self._admin.start_drain(segment, concurrency=DRAIN_CONCURRENCY)
        ends = time.monotonic() + self._drain_seconds
        while (status := self._admin.segment_status(segment)) != "DRAINED":
            if time.monotonic() >= ends:
                LOG.warning("still %s after %g s; the rest is lost to the store", status, self._drain_seconds)
                return
            sleep(TICK_SECONDS)
        LOG.info("drained to %d other nodes", len(others))


@contextmanager
def health_endpoint(node: StoreNode, address: str | None) -> Iterator[None]:
    """Answer `/healthz` (alive) and `/readyz` on `address` (`host:port`) inside the block; None: no endpoint."""
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise UserError(f"{address!r} is not host:port; correct --health-address")

    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0

        def do_GET(self) -> None:
            fine = self.path == "/healthz" or (self.path == "/readyz" and node.ready)
            known = self.path in ("/healthz", "/readyz")
            status = HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE if known else HTTPStatus.NOT_FOUND
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Probes are not news."""

    server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def run_node(
    settings: ClientSettings,
    *,
    admin_address: str,
    ready_file: Path | None = None,
    health_address: str | None = None,
    drain_seconds: float = 20.0,
) -> int:
    """Serve until SIGTERM; returns the exit code (TEMPORARY: the segment is gone, the role may come back).

    Raises `UserError` where this process may not lock its segment for RDMA.
    """
    settings.require_memory()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    node = StoreNode(settings, MooncakeAdmin(admin_address, deadline_seconds=2.0), drain_seconds=drain_seconds)
    with health_endpoint(node, health_address):
        while not stop.is_set():
            node.step()
            if ready_file is not None:
                note_ready(ready_file, node.ready)
            stop.wait(TICK_SECONDS)
        if ready_file is not None:
            note_ready(ready_file, False)
        node.leave()
    return int(Exit.TEMPORARY)


def pod_arguments() -> list[str]:
    """The arguments of a node that a supervisor started: from the job and the pod's environment."""
    store = read_config(required(os.environ, env.CONFIG_FILE)).store
    if store.master_address is None or store.master_metrics_address is None:
        raise UserError("the job names no Mooncake master: spec.store.backend must be Mooncake")
    grace = whole_number(os.environ, env.GRACE_SECONDS, 0)
    pairs = {
        "--master": store.master_address,
        "--admin": store.master_metrics_address,
        "--hostname": required(os.environ, env.HOST_ADDRESS),
        "--segment-bytes": str(store.segment_bytes),
        "--protocol": store.protocol,
        "--rdma-devices": store.rdma_devices,
        "--ready-file": str(required_path(os.environ, env.POD_DIRECTORY) / env.READY_FILE),
        "--drain-seconds": str(max(0, grace - LEAVE_SECONDS)),
    }
    return [word for pair in pairs.items() for word in pair]


def main() -> int:
    """`python -m eyas_runtime.features.blobs.mooncake_node`; without arguments, as a pod's role."""
    parser = argparse.ArgumentParser(description="Mooncake store node of one job")
    parser.add_argument("--master", required=True, help="host:port of the master's RPC")
    parser.add_argument("--admin", required=True, help="host:port of the master's metrics and admin HTTP")
    parser.add_argument("--hostname", required=True, help="address under which peers reach this node")
    parser.add_argument("--segment-bytes", type=int, required=True)
    parser.add_argument("--protocol", choices=("TCP", "RDMA"), default="TCP")
    parser.add_argument("--rdma-devices", default="")
    parser.add_argument("--ready-file", type=Path)
    parser.add_argument("--health-address")
    parser.add_argument("--drain-seconds", type=float, default=20.0)
    given = parser.parse_args(sys.argv[1:] or pod_arguments())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = ClientSettings(
        master_address=given.master,
        local_hostname=given.hostname,
        protocol=given.protocol,
        rdma_devices=given.rdma_devices,
        segment_bytes=given.segment_bytes,
    )
    return run_node(
        settings,
        admin_address=given.admin,
        ready_file=given.ready_file,
        health_address=given.health_address,
        drain_seconds=given.drain_seconds,
    )


if __name__ == "__main__":
    run_role(main)
