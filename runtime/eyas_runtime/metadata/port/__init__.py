"""Port `MetadataStore`: every state change of a job as one transaction.

Two adapters pass one conformance suite: `sqlite.SQLiteMetadataStore` (the product) and `fake.InMemoryMetadataStore`
(shipped for tests of others). The port is synchronous and single-threaded: the service calls it from one thread. It
reads no clock and no randomness: callers hand in `now` (Unix seconds, recorded, never compared) and minted nonces
where a method needs them. Lease terms are not its business (the service keeps them in memory, by the monotonic
clock); it only knows which leases exist.

Errors: `Fenced` (older attempt, incarnation, ordinal or epoch), `Closed` (incarnation closed), `Conflict` (state does
not allow it), `UserError` (unknown id, contradiction in the inputs). A failed call changes nothing.
"""

from typing import Protocol

from eyas_runtime.metadata.port.capture import CaptureRecords
from eyas_runtime.metadata.port.facts import FactRecords
from eyas_runtime.metadata.port.objects import ObjectRecords
from eyas_runtime.metadata.port.training import TrainingRecords
from eyas_runtime.metadata.port.values import (
    GangState,
    GroupNeed,
    JobFacts,
    LeaseGrant,
    LiveLease,
    StoredObject,
    Suspect,
    Usage,
)


class MetadataStore(CaptureRecords, TrainingRecords, ObjectRecords, FactRecords, Protocol):
    """See the module docstring.

    Steps count from 1, as optimizer steps do: step w trains sequence numbers [(w - 1) Q, w Q), cut at the end of the
    sequence; "window w" is the window of step w. Step 0 is the initial weights. Generations count from 1.
    """

    def close(self) -> None: ...


__all__ = [
    "CaptureRecords", "FactRecords", "GangState", "GroupNeed", "JobFacts", "LeaseGrant", "LiveLease", "MetadataStore",
    "ObjectRecords", "StoredObject", "Suspect", "TrainingRecords", "Usage",
]  # fmt: skip
