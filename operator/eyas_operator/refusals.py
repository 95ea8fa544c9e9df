"""What the cluster refused of each job, so that its conditions can say it until the cluster takes it.

Kept in memory only: a new operator learns it again by its first pass. A refusal ends when an object of the same subject
is taken, or when somebody changed the job.
"""

from dataclasses import dataclass, field
from typing import Final

from eyas_operator.errors import Refused
from eyas_operator.world import JobRecord

JOBS_MAX: Final = 10_000
"""Jobs that are remembered; one that is forgotten is learnt again."""


@dataclass(slots=True)
class _Of:
    generation: int
    sentences: dict[str, str] = field(default_factory=dict)
    """By subject."""


class Refusals:
    """Of all jobs of one operator."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Of] = {}

    def of(self, record: JobRecord) -> str:
        """The cluster's sentence, empty if nothing of the job as it is now was refused."""
        known = self._jobs.get(record.identity.uid)
        if known is None or known.generation != record.generation or not known.sentences:
            return ""
        return min(known.sentences.items())[1]

    def refused(self, record: JobRecord, error: Refused) -> bool:
        """Remember; True when this subject was not refused before."""
        uid = record.identity.uid
        known = self._jobs.get(uid)
        if known is None or known.generation != record.generation:
            known = self._jobs[uid] = _Of(record.generation)
        while len(self._jobs) > JOBS_MAX:
            del self._jobs[next(iter(self._jobs))]
        news = error.subject not in known.sentences
        known.sentences[error.subject] = str(error)
        return news

    def taken(self, uid: str, subject: str) -> None:
        """The cluster took such an object."""
        known = self._jobs.get(uid)
        if known is not None:
            known.sentences.pop(subject, None)
            if not known.sentences:
                del self._jobs[uid]
