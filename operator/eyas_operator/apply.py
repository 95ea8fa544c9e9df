"""Shell: carry out one plan through the `Cluster` port. Status, events, actions in order; stop at the first doubt.

The status write is guarded by the resource version: an operator that lost its turn writes nothing and does nothing.
Every action is idempotent, so an unknown outcome is repaired by the next pass. Events tell of the status that was just
written, and before any action: an action that fails would swallow them, since the next pass finds nothing new to tell,
and the facts of a crash have to be told before the pod that they came from is deleted.
"""

from collections.abc import Callable

from eyas_operator.actions import Action, Apply, Create, Delete, DeleteJob, EnsureSecret
from eyas_operator.api.status import dump_status
from eyas_operator.cluster import Cluster
from eyas_operator.plan import Plan
from eyas_operator.world import JobRecord


async def carry_out(cluster: Cluster, record: JobRecord, plan: Plan, written: Callable[[], None]) -> JobRecord:
    """Write the status if it changed, tell people, then act. `written` is called once the status is as planned.

    Raises `Conflict`, `Transient` or `Refused` from the port; whatever was not done is planned again by the next pass.
    """
    if plan.changed:
        record = await cluster.write_status(record, dump_status(plan.status))
    written()
    if plan.events:
        await cluster.post_events(record.identity, plan.events)
    for action in plan.actions:
        await _act(cluster, record, action)
    return record


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
        case DeleteJob():
            await cluster.delete_job(record.identity)
