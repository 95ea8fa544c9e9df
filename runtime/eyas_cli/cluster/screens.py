"""`kubectl eyas status` and `plot`: one screen of a job, once or again and again, and its curves.

Live numbers come from the metadata service where this user may ask it; else those in the job's status, and the screen
says so. Pods, roles and incidents are always the API server's.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from eyas_cli.cluster.access import Access
from eyas_cli.cluster.job import ClusterJob, JobPod, read_body, read_job
from eyas_cli.cluster.live import Service, service_of
from eyas_cli.cluster.numbers import reply_of
from eyas_cli.plot import draw
from eyas_cli.progress import PodLine, Progress, View, screen
from eyas_contract import wire
from eyas_contract.errors import EyasError, UserError
from eyas_operator.api.status import Stage
from eyas_operator.errors import Refused
from eyas_operator.names import Role

WATCH_SECONDS = 2.0
WHY_CHARACTERS_MAX = 120
NOT_ALLOWED = "numbers as of the operator's last look: live ones take the rights of the role eyas-curves"


def view_of(job: ClusterJob, reply: wire.StatusReply | None, notes: tuple[str, ...]) -> View:
    """What the screen shows. Pure."""
    status = job.status
    restarts = {role.name: role.restarts for role in status.roles}
    units = {(unit.role, unit.index): unit.restarts for unit in status.units}
    conditions = [it for it in status.conditions if it.type in ("Failed", "Stalled") and it.status == "True"]
    refused = [it for it in status.conditions if it.type == "Accepted" and it.status == "False"]
    unseen = () if status.conditions else ("no operator has looked at this job yet: kubectl eyas doctor",)
    said = tuple(f"{it.type}: {it.message}" for it in (*conditions, *refused))
    return View(
        name=f"{job.identity.namespace}/{job.identity.name}",
        state=status.state or "Pending",
        attempt=status.attempt,
        roles={role.name.value: (role.ready, role.desired) for role in status.roles},
        status=reply if reply is not None else reply_of(job.identity, status),
        incidents=status.incidents,
        pods=tuple(_line(entry, units, restarts) for entry in job.pods),
        notes=(*unseen, *said, *notes),
    )


def _line(entry: JobPod, units: Mapping[tuple[Role, int], int], roles: Mapping[Role, int]) -> PodLine:
    role = entry.identity.role
    return PodLine(
        unit=entry.unit,
        state=entry.state,
        ready=entry.ready,
        restarts=units.get((role, entry.identity.index), roles.get(role, 0)),
        node=entry.pod.spec.node_name,
        why=entry.waiting.removeprefix(entry.state).strip()[:WHY_CHARACTERS_MAX],
    )


async def show_status(access: Access, name: str, *, watch: bool, live: bool, as_json: bool) -> None:
    """Print the screen, once, or until the job ends."""
    if as_json:
        print(json.dumps((await read_body(access, name)).get("status", {}), indent=2))
        return
    console = Console()
    if not watch:
        job = await read_job(access, name)
        console.print(screen(view_of(job, *await _ask(access, job, live=live))))
        if job.status.result is not None:
            console.print(f"result    {job.status.state}, weights {job.status.result.weights_sha256}", soft_wrap=True)
        return
    with Progress(console) as progress:
        while True:
            job = await read_job(access, name)
            progress.show(view_of(job, *await _ask(access, job, live=live)))
            if job.status.stage is Stage.ENDED:
                return
            await asyncio.sleep(WATCH_SECONDS)


async def _ask(access: Access, job: ClusterJob, *, live: bool) -> tuple[wire.StatusReply | None, tuple[str, ...]]:
    """What the service says, and why it says nothing."""
    if not live or job.status.stage in (Stage.ENDED, Stage.SUSPENDED):
        return None, ()
    try:
        async with service_of(access, job) as service:
            return await service.call(wire.STATUS, wire.Empty()), ()
    except Refused:
        return None, (NOT_ALLOWED,)
    except UserError:
        return None, ()
    except EyasError as error:
        return None, (f"numbers as of the operator's last look: {str(error)[:WHY_CHARACTERS_MAX]}",)


async def draw_job(access: Access, name: str, output: Path | None) -> Path:
    """Draw loss and acceptance of a running job.

    Raises `UserError` while no metadata service is ready, `Refused` without the rights.
    """
    job = await read_job(access, name)
    async with AsyncExitStack() as stack:
        service: Service = await stack.enter_async_context(service_of(access, job))
        steps = await service.metrics()
    return draw(name, steps, job.status.incidents, output or Path(f"{name}.png"))
