"""Messages of producers: register, lease a capture group, renew it, and end it by commit, failure or return."""

from eyas_contract.ids import JobUid, LeaseToken
from eyas_contract.refs import PromptTask, SampleRef
from eyas_contract.wire.common import Fingerprint, Holder, Message, Name


class RegisterRequest(Message, frozen=True, kw_only=True):
    """First call of a producer process: frees at once what its predecessor held."""

    holder: Holder
    fingerprint: Fingerprint


class RegisterReply(Message, frozen=True, kw_only=True):
    """What the service knows."""

    job_uid: JobUid
    store_epoch: int
    prepared: bool


class LeaseRequest(Message, frozen=True, kw_only=True):
    """Ask for one capture group. The same `request_id` gives the same lease again."""

    holder: Holder
    request_id: Name
    wait_seconds: float = 0.0


class CaptureLease(Message, frozen=True, kw_only=True):
    """A whole capture group: every member in sequence order, and which of them to capture."""

    lease_id: str
    token: LeaseToken
    group: int
    tasks: tuple[PromptTask, ...]
    padded_length: int
    """Token length to which every member of the batch is padded: max over ALL members."""
    term_seconds: float
    deadline_seconds: float


class LeaseReply(Message, frozen=True, kw_only=True):
    """No lease: `finished` (no sequence number will ever need capture again unless lost) or `paused` (why)."""

    lease: CaptureLease | None
    finished: bool = False
    paused: str = ""


class RenewRequest(Message, frozen=True, kw_only=True):
    """Renew exactly the named leases, once a third of the term."""

    holder: Holder
    lease_ids: tuple[str, ...]


class RenewReply(Message, frozen=True, kw_only=True):
    """The named leases that are still this holder's."""

    alive: tuple[str, ...]


class CommitRequest(Message, frozen=True, kw_only=True):
    """Commit refs of captured members. Repeating it is harmless while the objects are the same."""

    holder: Holder
    lease_id: str
    token: LeaseToken
    refs: tuple[SampleRef, ...]


class CommitReply(Message, frozen=True, kw_only=True):
    """Sequence numbers that became ready by this lease (now or in an earlier repetition)."""

    accepted: tuple[int, ...]


class CaptureFailure(Message, frozen=True, kw_only=True):
    """A member that could not be captured."""

    sequence: int
    reason: str
    poison: bool
    """True: a reproducible error of the content. False: try again."""


class CaptureFailRequest(Message, frozen=True, kw_only=True):
    """Report members that could not be captured; the lease ends."""

    holder: Holder
    lease_id: str
    token: LeaseToken
    failures: tuple[CaptureFailure, ...]


class ReturnRequest(Message, frozen=True, kw_only=True):
    """Give leases back at once (clean shutdown)."""

    holder: Holder
    lease_ids: tuple[str, ...]
