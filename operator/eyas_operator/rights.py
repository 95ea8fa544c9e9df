"""What the operator may do in a namespace, and what its code has to be able to do there: one list for both.

Pure. The chart's Roles must equal it (a test renders them), and what the operator asks of a real API server must stay
inside it (the API tests record every request). No wildcard. Secrets are never read: a job's tokens are created, its
read tokens applied, and nothing else is asked of the API about any Secret.
"""

from dataclasses import dataclass
from typing import Final, Literal

from eyas_operator import names

Verb = Literal["get", "list", "watch", "create", "update", "patch", "delete"]
_SEEN: Final[tuple[Verb, ...]] = ("get", "list", "watch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """Some verbs on one resource of one API group."""

    group: str
    """Empty: the core group."""
    resource: str
    """Plural; `resource/subresource` for a part of it."""
    verbs: tuple[Verb, ...]


JOBS: Final = (
    # delete: the time to live is over; patch: the finalizer of jobs whose pool outlives them.
    Right(group=names.GROUP, resource=names.PLURAL, verbs=(*_SEEN, "delete", "patch")),
    Right(group=names.GROUP, resource=f"{names.PLURAL}/status", verbs=("update",)),
    # Some API servers let only those who may set finalizers make owner references that block the owner's deletion.
    Right(group=names.GROUP, resource=f"{names.PLURAL}/finalizers", verbs=("update",)),
)
CREATED: Final = (
    Right(group="", resource="pods", verbs=(*_SEEN, "create", "delete")),
    Right(group="", resource="persistentvolumeclaims", verbs=(*_SEEN, "create", "delete")),
)
APPLIED: Final = (
    # Created, and applied only where somebody took its labels away.
    Right(group="", resource="configmaps", verbs=(*_SEEN, "create", "patch", "delete")),
    # Server-side apply of an object that is not there yet asks for create, too.
    Right(group="", resource="services", verbs=(*_SEEN, "create", "patch", "delete")),
    Right(group="networking.k8s.io", resource="networkpolicies", verbs=(*_SEEN, "create", "patch", "delete")),
    Right(group="policy", resource="poddisruptionbudgets", verbs=(*_SEEN, "create", "patch", "delete")),
)
SECRETS: Final = (Right(group="", resource="secrets", verbs=("create", "patch")),)
EVENTS: Final = (Right(group="events.k8s.io", resource="events", verbs=("create", "patch")),)
JOB_RIGHTS: Final = (*JOBS, *CREATED, *APPLIED, *SECRETS, *EVENTS)
"""In every namespace whose jobs are watched."""
OWN_RIGHTS: Final = (Right(group="coordination.k8s.io", resource="leases", verbs=("get", "create", "update")),)
"""In the operator's own namespace: the Lease that says which replica leads."""
