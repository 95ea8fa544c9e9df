"""The whole process: reach the API server, serve probes, win the Lease, list, watch, make passes, end in good order.

Ends with `DONE` after SIGTERM or SIGINT, `FENCED` when another operator leads, `TEMPORARY` when a stream or the
API server failed for good (Kubernetes starts the container again), `CONFIG` for settings that cannot work. Nothing is
handed over between two lives: what a pass needs is in the cluster.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from prometheus_client import disable_created_metrics

from eyas_contract.errors import EyasError, Fenced
from eyas_contract.exits import Exit
from eyas_operator.backends.kubernetes.client import open_client
from eyas_operator.backends.kubernetes.lease import KubeLeaseStore
from eyas_operator.backends.kubernetes.opening import open_cluster
from eyas_operator.environment import KubernetesEnvironment
from eyas_operator.leadership.campaign import Campaign
from eyas_operator.leadership.guard import LedCluster
from eyas_operator.process.endpoints import serve
from eyas_operator.process.health import Vitals
from eyas_operator.process.leader import Leader
from eyas_operator.process.logs import log_to_stderr
from eyas_operator.process.metrics import ProcessMetrics
from eyas_operator.process.settings import ProcessSettings, read_process_settings
from eyas_operator.queue.turns import Turns
from eyas_operator.reconciler import Reconciler
from eyas_operator.settings import Settings, read_settings
from eyas_operator.telemetry import Telemetry

log = logging.getLogger(__name__)


def boot_seconds() -> float:
    """Seconds on a clock that goes on while the machine sleeps: a Lease does not stop for it either."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> NoReturn:
    """Run the operator with the settings of the environment; ends the process with its exit code."""
    code = Exit.CRASH
    try:
        settings, process = read_settings(), read_process_settings()
        log_to_stderr(process.log_level)
        code = asyncio.new_event_loop().run_until_complete(operate(settings, process))
    except EyasError as error:
        # One sentence for people, whether or not logging was set up.
        sys.stderr.write(f"eyas-operator: {error}\n")
        code = error.exit_code
    except Exception:
        log.exception("the process failed")
    leave(code)


def leave(code: Exit) -> NoReturn:
    """End now. What kopf left behind is not waited for: a stream that waits for credentials swallows its end."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(int(code))


async def operate(settings: Settings, process: ProcessSettings) -> Exit:
    """One life of the process. Raises `UserError` or `Transient` where it cannot begin."""
    stopping = asyncio.Event()
    catch_signals(stopping)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    telemetry = Telemetry()
    metrics = ProcessMetrics(telemetry.registry, version("eyas"), time.time)
    environment = KubernetesEnvironment(runtime_image=settings.runtime_image, train_image=settings.train_image)
    async with AsyncExitStack() as stack:
        # Connections of its own: a renewal never waits behind the requests of passes.
        client = await open_client(_kubeconfig(), telemetry.requested)
        stack.push_async_callback(client.close)
        store = KubeLeaseStore(client, process.namespace, process.lease_name)
        campaign = Campaign(store, process.pod_name, clock=boot_seconds, wall=time.time)
        cluster = await stack.enter_async_context(
            open_cluster(
                key_directory=process.key_folder,
                instance=process.pod_name,
                environment=environment,
                clock=time.time,
                telemetry=telemetry,
                kubeconfig=_kubeconfig(),
            )
        )
        led = LedCluster(cluster, lambda: campaign.leading)
        reconciler = Reconciler(led, environment, settings, time.time, telemetry, Turns())
        leader = Leader(cluster, reconciler, telemetry, metrics, process, clock=boot_seconds)
        endpoints = await serve(
            telemetry.registry,
            lambda: vitals(campaign, leader, process),
            address=process.listen_address,
            metrics_port=process.metrics_listen,
            probes_port=process.probes_listen,
        )
        stack.push_async_callback(endpoints.close)
        metrics.follow("leader", "1 while this process leads.", lambda: float(campaign.leading))
        ports = {"metrics": endpoints.metrics_port, "probes": endpoints.probes_port}
        log.info("started", extra={"identity": process.pod_name, "namespaces": list(process.namespaces), **ports})
        if not await _won(campaign, stopping):
            return Exit.DONE
        return await _lead(leader, campaign, stopping)


async def _won(campaign: Campaign, stopping: asyncio.Event) -> bool:
    """Whether this process leads; False: it was told to stop first."""
    winning, stop = asyncio.create_task(campaign.win()), asyncio.create_task(stopping.wait())
    await asyncio.wait((winning, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not winning.done():
        winning.cancel()
        return False
    winning.result()
    return True


async def _lead(leader: Leader, campaign: Campaign, stopping: asyncio.Event) -> Exit:
    """Lead until told to stop, or until something ends that never should."""
    stop = asyncio.create_task(stopping.wait(), name="stop")
    holding = asyncio.create_task(campaign.hold(), name="lease")
    leading = asyncio.create_task(leader.run(lambda: catch_signals(stopping)), name="leader")
    await asyncio.wait((stop, holding, leading), return_when=asyncio.FIRST_COMPLETED)
    if not campaign.leading or (leading.done() and isinstance(leading.exception(), Fenced)):
        # Nothing is finished, and nothing is given back.
        log.error("another operator may lead: this process ends at once")
        leave(Exit.FENCED)
    log.info("stopping")
    await leader.drain()
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    await campaign.give_back()
    await leader.close()
    ended = leading if leading.done() else None
    for task in (stop, holding, leading):
        task.cancel()
    await asyncio.gather(stop, holding, leading, return_exceptions=True)
    return Exit.DONE if ended is None or stopping.is_set() else _why(ended)


def _why(ended: "asyncio.Task[str]") -> Exit:
    """What it was that never should end. Raises the error of a bug."""
    log.error("what should never end has ended", extra={"error": ended.result()})
    return Exit.TEMPORARY


def vitals(campaign: Campaign, leader: Leader, process: ProcessSettings) -> Vitals:
    """What the probes judge."""
    now = boot_seconds()
    return Vitals(
        leading=campaign.leading,
        synced=leader.resync.synced,
        lease_try_age=now - campaign.last_try,
        lease_look_age=now - campaign.last_look,
        oldest_pass=leader.workers.oldest_pass_seconds,
        relist_age=now - leader.resync.last,
        relist_seconds=process.relist_seconds,
        stale_relists=leader.resync.stale,
    )


def catch_signals(stopping: asyncio.Event) -> None:
    """SIGTERM and SIGINT end the process in good order; a second one ends it at once."""
    loop = asyncio.get_running_loop()

    def caught(number: signal.Signals) -> None:
        if stopping.is_set():
            leave(Exit.TEMPORARY)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, caught, number)


def _kubeconfig() -> Path | None:
    """Where a kubeconfig is named it is used; else the account of this pod."""
    named = os.environ.get("KUBECONFIG", "")
    return Path(named) if named else None
