"""What went wrong with a job, as its status keeps it: one row for each end of a pod, gang or child, with its cost.

Values only; when one is opened, advanced and closed is in `policies.incidents`.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from eyas_operator.api.base import CAMEL

INCIDENTS_MAX: Final = 30
INCIDENT_MESSAGE_CHARACTERS_MAX: Final = 512
RESTART_CLASSES: Final = frozenset({"ChildExited", "Hang", "GangReplaced"})
"""Classes of the metadata service's incidents after which processes were started again in their pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something that went wrong, and what it cost."""

    __pydantic_config__ = CAMEL

    klass: Annotated[str, Field(alias="class")]
    """Failure class."""
    unit: str
    """For example `producer-1` or `consumers`."""
    source: Literal["Operator", "Service"]
    """Who saw it: the operator, or the job's metadata service."""
    message: str
    """What was known of it."""
    node: str = ""
    """Where the pod ran."""
    serial: int = 0
    """Ordinal or attempt that failed."""
    counted: bool = False
    """Counts against the restart budget."""
    detected_time: str = ""
    """When it was seen."""
    replaced_time: str = ""
    """The successor was ready."""
    first_step_time: str = ""
    """First optimizer step (or capture) after it; empty for ever when it ended in another way than `Recovered`."""
    seconds: int = -1
    """From detection to the first step; -1 without one."""
    outcome: Literal["", "Recovered", "Suspended", "Ended", "Removed"] = ""
    """Empty while open. `Recovered`: work was seen after it. Otherwise none was: the job was suspended or ended
    first, or its unit was not wanted any more."""
    windows_replayed: int = 0
    """Windows that were trained again."""
    step_detected: int = 0
    """Last step before it."""
    step_resumed: int = -1
    """Step from which training went on; -1 while unknown."""
    samples_resumed: int = -1
    """Captured samples when capture went on; -1 while unknown."""

    @property
    def open(self) -> bool:
        """It is not over."""
        return not self.outcome

    @property
    def restart(self) -> bool:
        """Something was started again because of it."""
        return self.source == "Operator" or self.klass in RESTART_CLASSES
