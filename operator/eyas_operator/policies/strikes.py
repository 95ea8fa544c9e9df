"""Node strikes: nodes on which this job's pods failed in a way that points at the node are avoided for a while.

From pod conditions and messages only; the operator reads no nodes. A preference, never a prohibition: a cluster of one
node must still recover.
"""

from dataclasses import replace

from eyas_operator.api.status import JobStatus, NodeStrikes
from eyas_operator.policies.failures import STRIKING, Failure
from eyas_operator.policies.moment import Moment

NODES_MAX = 32


def struck(moment: Moment, status: JobStatus, failure: Failure) -> JobStatus:
    """`status` with one strike more for the failure's node, if its class speaks against the node."""
    if failure.klass not in STRIKING or not failure.node:
        return status
    before = next((entry.strikes for entry in status.strikes if entry.node == failure.node), 0)
    others = tuple(entry for entry in status.strikes if entry.node != failure.node)
    entry = NodeStrikes(node=failure.node, strikes=before + 1, last_time=moment.time)
    newest = sorted((*others, entry), key=lambda item: item.last_time)[-NODES_MAX:]
    return replace(status, strikes=tuple(sorted(newest, key=lambda item: item.node)))


def decay(moment: Moment, status: JobStatus) -> JobStatus:
    """Halve each node's strikes once per decay time without a new one; forget it at zero."""
    kept = []
    for entry in status.strikes:
        if moment.since(entry.last_time) >= moment.settings.strike_decay_seconds:
            entry = replace(entry, strikes=entry.strikes // 2, last_time=moment.time)
        if entry.strikes:
            kept.append(entry)
    return replace(status, strikes=tuple(kept))
