"""Shell: carry out one plan through the `Cluster` port. Status, events, actions in order; stop at the first doubt.

The status write is guarded by the resource version: an operator that lost its turn writes nothing and does nothing.
Every action is idempotent, so an unknown outcome is repaired by the next pass. Events tell of the status that was just
written, and before any action: an action that fails would swallow them, since the next pass finds nothing new to tell,
and the facts of a crash have to be told before the pod that they came from is deleted.
"""

from collections.abc import Callable

from eyas_operator import names
from eyas_operator.actions import Action, Apply, Create, Delete, DeleteJob, EnsureSecret, SetFinalizer
from eyas_operator.api.status import dump_status
from eyas_operator.cluster import Cluster
from eyas_operator.errors import Refused
from eyas_operator.plan import Plan
from eyas_operator.world import JobRecord, Manifest


async def carry_out(
    cluster: Cluster, record: JobRecord, plan: Plan, written: Callable[[], None], taken: Callable[[str], None]
) -> JobRecord:
    """Write the status if it changed, tell people, then act. `written` is called once the status is as planned.

    `taken(subject)` is called for each object that the cluster took. Raises `Conflict`, `Transient` or `Refused` (with
    its subject) from the port; whatever was not done is planned again by the next pass.
    """
    if plan.changed:
        record = await cluster.write_status(record, dump_status(plan.status))
    written()
    if plan.events:
        await cluster.post_events(record.identity, plan.events)
    for action in plan.actions:
        subject = subject_of(action)
        try:
            await _act(cluster, record, action)
        except Refused as error:
            raise Refused(str(error), subject=subject) from error
        taken(subject)
    return record


def subject_of(action: Action) -> str:
    """What an action is about, whatever number its object has."""
    match action:
        case EnsureSecret(shape=shape):
            return _subject(shape.manifest)
        case Apply(manifest=manifest) | Create(manifest=manifest):
            return _subject(manifest)
        case Delete(target=target):
            return f"deletion of a {target.kind}"
        case DeleteJob():
            return "deletion of the job"
        case SetFinalizer():
            return "finalizer of the job"


def _subject(manifest: Manifest) -> str:
    """Pods of a role are alike; of other objects there is one of each name."""
    role = manifest["metadata"]["labels"].get(names.LABEL_ROLE, "")
    return f"{manifest['kind']} {role if manifest['kind'] == 'Pod' else manifest['metadata']['name']}"


async def _act(cluster: Cluster, record: JobRecord, action: Action) -> None:
    match action:
        case EnsureSecret(shape=shape):
            await cluster.ensure_secret(shape)
        case Apply(manifest=manifest):
            await cluster.apply(manifest)
        case Create(manifest=manifest):
            await cluster.create(manifest)
        case Delete(target=target, grace_seconds=grace_seconds):
            await cluster.delete(record.identity, target, grace_seconds=grace_seconds)
        case SetFinalizer(present=present):
            await cluster.set_finalizer(record, present=present)
        case DeleteJob():
            await cluster.delete_job(record.identity)
