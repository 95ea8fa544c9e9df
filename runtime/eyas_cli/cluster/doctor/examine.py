"""All checks, in the order in which a person would ask."""

from datetime import UTC, datetime

from eyas_cli.checks import Check
from eyas_cli.cluster.access import Access
from eyas_cli.cluster.doctor import cluster, installed, person, waiting
from eyas_cli.cluster.doctor.ask import guarded


async def examine(access: Access, name: str) -> list[Check]:
    """Every check of the cluster, the operator and the user; with a name, of that job, too."""
    now = datetime.now(UTC)
    parts = (
        ("user", lambda: person.clock(access, now)),
        ("definition", lambda: installed.definition(access)),
        ("operator", lambda: installed.operator(access, now)),
        ("rights", lambda: person.rights(access)),
        ("namespace", lambda: cluster.allowed(access)),
        ("storage", lambda: cluster.storage(access)),
        ("nodes", lambda: cluster.devices(access)),
        *((("job", lambda: waiting.job(access, name)),) if name else ()),
    )
    return [check for what, part in parts for check in await guarded(what, part)]
