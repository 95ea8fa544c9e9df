"""Live numbers of a job: its metadata service, asked through a tunnel to its pod with the job's read token.

It takes the rights of the ClusterRole `curves` (a tunnel into a pod, reading the Secret of read tokens). The token
stays in memory. Without these rights, or while no metadata pod is ready, there are only the numbers in the job's
status.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from eyas_cli.cluster.access import Access
from eyas_cli.cluster.job import ClusterJob
from eyas_contract import env, wire
from eyas_contract.client_http import exchange, new_pool, problem_of
from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Transient, UserError
from eyas_contract.wire import Q, R
from eyas_operator import names
from eyas_operator.backends.kubernetes.errors import Missing
from eyas_operator.backends.kubernetes.resources import SECRETS
from eyas_operator.backends.kubernetes.sockets import Tunnel, tunnel
from eyas_operator.names import Role

METRICS_PAGE = 1000


class _Secret(msgspec.Struct):
    data: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Service:
    """The metadata service at the other end of a tunnel."""

    end: Tunnel
    token: str

    async def call(self, endpoint: wire.Endpoint[Q, R], request: Q) -> R:
        """One call. Raises what the service names, or `Transient` when it does not answer."""
        try:
            return await asyncio.to_thread(self._call, endpoint, request)
        except Transient as error:
            raise Transient(self.end.problem or str(error)) from error

    def _call(self, endpoint: wire.Endpoint[Q, R], request: Q) -> R:
        with new_pool(f"http://127.0.0.1:{self.end.port}") as pool:
            answer = exchange(
                pool, endpoint.path, wire.encode(request), token=self.token, store_epoch=0, wait_seconds=0.0
            )
        if answer.status != 200:
            raise problem_of(endpoint.path, answer)
        try:
            return msgspec.json.decode(answer.body, type=endpoint.reply)
        except UNDECODABLE as error:
            raise Transient(f"the answer to {endpoint.path} is damaged: {error}") from error

    async def metrics(self) -> tuple[wire.StepMetrics, ...]:
        """Metrics of every trained step, in step order."""
        found: list[wire.StepMetrics] = []
        while True:
            after = found[-1].step if found else 0
            page = await self.call(wire.METRICS, wire.MetricsRequest(after_step=after, limit=METRICS_PAGE))
            found += page.steps
            if not page.steps:
                return tuple(found)


@asynccontextmanager
async def service_of(access: Access, job: ClusterJob) -> AsyncIterator[Service]:
    """The job's metadata service. Raises `UserError` without one, `Refused` without the rights."""
    pods = [entry for entry in job.pods if entry.identity.role is Role.METADATA and entry.ready]
    if not pods:
        raise UserError(f"no metadata service of {job.identity.name} is ready: live numbers and curves are not there")
    token = await _token(access, job)
    newest = max(pods, key=lambda entry: (entry.identity.store_epoch, entry.identity.serial))
    async with tunnel(access.client, access.namespace, newest.name, env.METADATA_PORT) as end:
        yield Service(end, token)


async def _token(access: Access, job: ClusterJob) -> str:
    name = names.reader_secret(job.identity)
    try:
        raw = await access.client.get(SECRETS.item(access.namespace, name))
        data = msgspec.json.decode(raw, type=_Secret).data
        tokens = base64.b64decode(data.get(env.TOKEN_READER, ""), validate=True).decode("ascii").split()
    except (Missing, binascii.Error, UnicodeDecodeError) as error:
        raise UserError(f"the Secret {name} with the job's read token is not there, or damaged") from error
    if not tokens:
        raise UserError(f"the Secret {name} holds no read token")
    return tokens[0]
