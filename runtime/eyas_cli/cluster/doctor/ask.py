"""How checks ask: a refusal becomes a warning, an absence is told apart from both."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from eyas_cli.checks import Check
from eyas_cli.cluster.access import Access
from eyas_contract.errors import EyasError
from eyas_operator.backends.kubernetes.errors import Missing
from eyas_operator.errors import Refused

Object = dict[str, Any]


async def find(access: Access, path: str, **query: str) -> Object | None:
    """One object or list; None when there is none."""
    try:
        found: Object = msgspec.json.decode(await access.client.get(path, query=query or None))
    except Missing:
        return None
    return found


async def guarded(name: str, check: Callable[[], Awaitable[list[Check]]]) -> list[Check]:
    """The outcome of `check`, or one warning that it could not be made."""
    try:
        return await check()
    except Refused as error:
        return [Check(name, "warning", f"you may not see it: {error}")]
    except EyasError as error:
        return [Check(name, "error", str(error))]
