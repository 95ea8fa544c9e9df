"""Shell: `/metrics` on one port, `/healthz` and `/readyz` on another. Nothing of a job's data is served."""

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from eyas_contract.errors import Transient
from eyas_operator.process.health import Vitals, illness, unreadiness


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Both servers, as they run."""

    runners: tuple[web.AppRunner, ...]
    metrics_port: int
    probes_port: int

    async def close(self) -> None:
        """Stop serving."""
        for runner in self.runners:
            await runner.cleanup()


async def serve(
    registry: CollectorRegistry, vitals: Callable[[], Vitals], *, address: str, metrics_port: int, probes_port: int
) -> Endpoints:
    """Begin to serve. Raises `Transient` when a port is taken."""
    metrics, probes = web.Application(), web.Application()

    async def measured(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return _verdict(illness(vitals()))

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(unreadiness(vitals()))

    metrics.router.add_get("/metrics", measured)
    probes.router.add_get("/healthz", healthz)
    probes.router.add_get("/readyz", readyz)
    first, metrics_bound = await _listen(metrics, address, metrics_port)
    second, probes_bound = await _listen(probes, address, probes_port)
    return Endpoints(runners=(first, second), metrics_port=metrics_bound, probes_port=probes_bound)


def _verdict(reason: str) -> web.Response:
    return web.Response(status=503 if reason else 200, text=f"{reason or 'ok'}\n")


async def _listen(app: web.Application, address: str, port: int) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, address or None, port).start()
    except OSError as error:
        await runner.cleanup()
        raise Transient(f"cannot listen on port {port}: {error.strerror}") from error
    return runner, int(runner.addresses[0][1])
