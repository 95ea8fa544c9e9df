"""Opens the cluster for one command, with the flags that kubectl has for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from eyas_operator.backends.kubernetes.client import KubeClient
from eyas_operator.backends.kubernetes.people import open_for_person

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which cluster and namespace; empty strings: as kubectl chooses."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """An open client, and the namespace that is meant."""

    client: KubeClient
    namespace: str


@asynccontextmanager
async def opened(where: Where) -> AsyncIterator[Access]:
    """The cluster, as long as the block runs. Raises `UserError` without a usable kubeconfig."""
    client, namespace = await open_for_person(where.kubeconfig, where.context)
    try:
        yield Access(client, where.namespace or namespace)
    finally:
        await client.close()


def with_access(where: Where, command: Callable[[Access], Awaitable[T]]) -> T:
    """Run one command to its end."""

    async def whole() -> T:
        async with opened(where) as access:
            return await command(access)

    return asyncio.run(whole())
