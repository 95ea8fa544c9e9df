"""`kubectl eyas logs`: what the pods of a job said, each line with the unit that said it."""

import asyncio

from eyas_cli.cluster.access import Access
from eyas_cli.cluster.job import JobPod, read_job
from eyas_contract.errors import EyasError
from eyas_operator import names
from eyas_operator.backends.kubernetes.resources import PODS

LINE_BYTES_MAX = 64 << 10
"""A longer line is cut into several."""


async def print_logs(access: Access, name: str, unit: str, *, attempt: int | None, tail: int, follow: bool) -> None:
    """Print the last lines of every chosen pod, and what comes if asked; a pod that comes later is not followed."""
    job = await read_job(access, name)
    chosen = job.of(unit, attempt)
    width = max(len(_title(entry)) for entry in chosen)
    if follow:
        await asyncio.gather(*(_print(access, entry, width, tail, follow=True) for entry in chosen))
        return
    for entry in chosen:
        await _print(access, entry, width, tail, follow=False)


def _title(entry: JobPod) -> str:
    """Unit and serial: several attempts of one unit may stand side by side."""
    return entry.identity.hostname


async def _print(access: Access, entry: JobPod, width: int, tail: int, *, follow: bool) -> None:
    query = {"container": names.CONTAINER, "tailLines": str(tail)} | ({"follow": "true"} if follow else {})
    path = f"{PODS.item(access.namespace, entry.name)}/log"
    try:
        async with access.client.stream(path, query=query) as lines:
            pending = b""
            async for chunk in lines.iter_any():
                *whole, pending = (pending + chunk).split(b"\n")
                for line in whole:
                    _say(entry, width, line)
                if len(pending) > LINE_BYTES_MAX:
                    _say(entry, width, pending)
                    pending = b""
            if pending:
                _say(entry, width, pending)
    except EyasError as error:
        # One pod that has no log yet must not hide those of the others.
        _say(entry, width, f"(no log: {entry.waiting or error})".encode())


def _say(entry: JobPod, width: int, line: bytes) -> None:
    print(f"{_title(entry):<{width}}  {line.decode(errors='replace')}", flush=True)
