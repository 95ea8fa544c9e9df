"""Plays the metadata services of all jobs: each at an address of its own on the loopback, on the port of the real ones.

The operator asks them in every pass. A benchmark without them would measure an operator whose every question fails.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from eyas_contract import env, wire
from eyas_contract.ids import JobUid
from eyas_contract.states import Gang, Phase

BEGUN_SECONDS: Final = 30.0
_PER_NETWORK: Final = 250
STEPS: Final = 20000
ACKED: Final = 50


def address(index: int) -> str:
    """Where all pods of the job `index` of this process are; two benchmarks at once have different ones."""
    return f"127.{128 + os.getpid() % 100}.{index // _PER_NETWORK}.{index % _PER_NETWORK + 1}"


def report(job_uid: JobUid) -> wire.StatusReply:
    """What the service of a job says that is in the middle of its training, always the same."""
    return wire.StatusReply(
        job_uid=job_uid, store_epoch=1, phase=Phase.RUNNING, failure="", attempt=1, incarnation="", gang=Gang.OPEN,
        total_steps=STEPS, total_samples=8 * STEPS, sealed_step=ACKED, acked_step=ACKED, durable_step=ACKED,
        samples_ready=8, samples_lost=0, samples_dead=0, samples_committed=8 * ACKED + 8, samples_recaptured=0,
        samples_trained=8 * ACKED, resident_objects=8, resident_bytes=2**20, reserved_bytes=0, cap_bytes=2**30,
        live_leases=0, paused="", exact=True, inexact_reasons=(), capture_drift=0, seconds_since_advance=0.0,
        steps_per_second=1.0, last_metrics={}, checkpoint_directory="", weights_sha256="", dead_letters=(),
        incidents=(), total_training_steps=STEPS, acked_training_step=ACKED, durable_training_step=ACKED,
    )  # fmt: skip


class Services:
    """The services, in a thread of their own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, runner: web.AppRunner, replies: dict[str, bytes]) -> None:
        self._loop = loop
        self._runner = runner
        self._replies = replies

    def begin(self, index: int, job_uid: JobUid) -> None:
        """The service of the job `index` answers. Raises `OSError` when its address is taken."""
        self._replies[address(index)] = wire.encode(report(job_uid))
        asyncio.run_coroutine_threadsafe(
            web.TCPSite(self._runner, address(index), env.METADATA_PORT).start(), self._loop
        ).result(BEGUN_SECONDS)


@contextmanager
def services() -> Iterator[Services]:
    """No service yet; all are gone after the block."""
    ready: Future[Services] = Future()
    over = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(ready, over)), name="services")
    thread.start()
    try:
        yield ready.result(BEGUN_SECONDS)
    finally:
        over.set()
        thread.join()


async def _serve(ready: "Future[Services]", over: threading.Event) -> None:
    replies: dict[str, bytes] = {}

    async def answer(request: web.Request) -> web.Response:
        transport = request.transport
        host = transport.get_extra_info("sockname")[0] if transport is not None else ""
        return web.Response(body=replies[host], content_type="application/json", headers={wire.STORE_EPOCH_HEADER: "1"})

    app = web.Application()
    app.router.add_post(wire.STATUS.path, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    ready.set_result(Services(asyncio.get_running_loop(), runner, replies))
    try:
        await asyncio.to_thread(over.wait)
    finally:
        await runner.cleanup()
