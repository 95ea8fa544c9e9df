"""Our arm of `eyas bench cluster`: the job as it was given, with a gang of three."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec

from eyas_cli.bench.cluster.arm import Place, until
from eyas_cli.cluster.access import Access
from eyas_cli.cluster.job import read_job
from eyas_cli.cluster.kill import signalled
from eyas_cli.cluster.live import Service, service_of
from eyas_contract import wire
from eyas_contract.errors import Transient, UserError
from eyas_operator import names
from eyas_operator.api.status import Stage
from eyas_operator.backends.kubernetes.errors import Missing
from eyas_operator.backends.kubernetes.resources import CLAIMS, JOBS
from eyas_operator.names import Role

GONE_SECONDS = 60.0


class OurArm:
    """See `Arm`."""

    def __init__(self, access: Access, name: str, uid: str, stack: AsyncExitStack) -> None:
        self.access = access
        self.selector = f"{names.LABEL_JOB_UID}={uid},{names.LABEL_ROLE}={Role.CONSUMER.value}"
        self._name, self._stack = name, stack
        self._service: Service | None = None

    async def place(self) -> Place | None:
        """As the metadata service says. Raises `UserError` when the job is over, which none is that is measured."""
        try:
            if self._service is None:
                self._service = await self._stack.enter_async_context(
                    service_of(self.access, await read_job(self.access, self._name))
                )
            status = await self._service.call(wire.STATUS, wire.Empty())
        except (Transient, UserError):
            await self._check()
            return None
        if not status.incarnation:
            return None
        return Place(life=status.incarnation, step=status.acked_step, resumed=status.durable_step)

    async def _check(self) -> None:
        status = (await read_job(self.access, self._name)).status
        if status.stage is Stage.ENDED:
            said = next((it.message for it in status.conditions if it.type == "Failed"), "")
            raise UserError(f"the job {self._name} is {status.state}: {said}")

    async def kill_process(self, pod: str) -> None:
        """See `Arm`."""
        await signalled(self.access, pod, "KILL")


@asynccontextmanager
async def our_arm(access: Access, body: dict[str, Any]) -> AsyncIterator[OurArm]:
    """The job, until the block ends; then it and its checkpoints are deleted."""
    raw = await access.client.create(JOBS.collection(access.namespace), body)
    meta = msgspec.json.decode(raw)["metadata"]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_remove, access, meta["name"], meta["uid"])
        arm = OurArm(access, meta["name"], meta["uid"], stack)
        await until(arm.place, "the job trains")
        yield arm


async def _remove(access: Access, name: str, uid: str) -> None:
    await access.client.delete(JOBS.item(access.namespace, name), uid=uid)
    query = {"labelSelector": f"{names.LABEL_JOB_UID}={uid}"}
    ends = time.monotonic() + GONE_SECONDS
    while time.monotonic() < ends:
        raw = await access.client.get(CLAIMS.collection(access.namespace), query=query)
        claims = [it["metadata"] for it in msgspec.json.decode(raw)["items"]]
        for claim in claims:
            try:
                await access.client.delete(CLAIMS.item(access.namespace, claim["name"]), uid=claim["uid"])
            except Missing:
                continue
        if not claims:
            return
        await asyncio.sleep(1)
