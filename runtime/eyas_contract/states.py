"""State tables of samples, leases, windows and gangs: the only source of transitions.

Every transition in SQL is one guarded UPDATE that restates a row of these tables; a test compares the two. An illegal
transition raises and changes nothing. A sequence number without a row is `pending`: rows are made when first leased.
"""

from enum import StrEnum
from typing import Final

from eyas_contract.errors import Conflict


class Sample(StrEnum):
    """State of one sequence number."""

    PENDING = "pending"
    """Never captured; no object."""
    READY = "ready"
    """Committed: an object with a known digest is (believed) in the store."""
    LOST = "lost"
    """Was ready; its object is gone, wrong or evicted. Captured again from its prompt."""
    DEAD = "dead"
    """On the dead-letter list with a reason: a zero-weight hole."""
    RELEASED = "released"
    """Trained in a window at or below the durable step; the object is deleted or about to be."""


class SampleEvent(StrEnum):
    """What may happen to a sample."""

    COMMIT = "commit"
    LOSE = "lose"
    KILL = "kill"
    RELEASE = "release"
    RESURRECT = "resurrect"
    """Reconcile moved the durable step down: the feature of a released sample is needed again."""
    REVIVE = "revive"
    """Reconcile went back to before a dead letter was decided in a window above the durable step."""


SAMPLE_TRANSITIONS: Final[dict[tuple[Sample, SampleEvent], Sample]] = {
    (Sample.PENDING, SampleEvent.COMMIT): Sample.READY,
    (Sample.PENDING, SampleEvent.KILL): Sample.DEAD,
    (Sample.LOST, SampleEvent.COMMIT): Sample.READY,
    (Sample.LOST, SampleEvent.KILL): Sample.DEAD,
    (Sample.READY, SampleEvent.LOSE): Sample.LOST,
    (Sample.READY, SampleEvent.KILL): Sample.DEAD,
    (Sample.READY, SampleEvent.RELEASE): Sample.RELEASED,
    (Sample.LOST, SampleEvent.RELEASE): Sample.RELEASED,
    # Only after the rows were lost: a checkpoint from before contains the sample.
    (Sample.PENDING, SampleEvent.RELEASE): Sample.RELEASED,
    (Sample.RELEASED, SampleEvent.RESURRECT): Sample.LOST,
    (Sample.DEAD, SampleEvent.REVIVE): Sample.LOST,
}


def after(state: Sample, event: SampleEvent) -> Sample:
    """The state that follows. Raises `Conflict` when the table has no such row."""
    try:
        return SAMPLE_TRANSITIONS[state, event]
    except KeyError:
        raise Conflict(f"a {state} sample cannot {event}") from None


class Gang(StrEnum):
    """State of one incarnation of the consumer gang."""

    OPEN = "open"
    CLOSED = "closed"
    """A member exited, hung, or was replaced: its ranks are killed and started again."""


class Phase(StrEnum):
    """What the metadata service says of the whole job."""

    PREPARING = "Preparing"
    RUNNING = "Running"
    COMPLETE = "Complete"
    """Every sequence number is trained or dead, and a durable checkpoint says so."""
    FAILED = "Failed"
    """A permanent error that the service itself found (inputs changed, checkpoints lost)."""
