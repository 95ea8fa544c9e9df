"""The decision of `reconcile_on_restart`: may this caller start the ranks, from which checkpoint, and what is struck.

One way back: every start of the ranks asks this, the very first included, and a lost metadata volume is merely the case
in which the store knows nothing. What is decided here is written by the adapters in one transaction.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from eyas_contract import wire
from eyas_contract.errors import Closed, Conflict, Fenced, UserError
from eyas_contract.ids import Incarnation, JobUid
from eyas_runtime.core.retention import RecordedCheckpoint

GENERATION_JUMP = 1 << 32
"""Added to the floor of a checkpoint's record when the rows since then are unknown: more captures than can have
happened since, so that a generation never comes back even if the store epoch did not change."""


NOT_PREPARED = (
    "the inputs are being prepared again: with evaluation, where a window ends follows from how many prompts there are"
)


class CheckpointsLost(UserError):
    """The ranks would start at 0 although a commit is on record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestGang:
    """The newest incarnation on record."""

    incarnation: Incarnation
    attempt: int
    process: str
    """Nonce of the rank 0 that made it."""
    open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What the store knows before the call."""

    job_uid: JobUid
    store_epoch: int
    attempt: int
    newest: NewestGang | None
    former_process: bool
    """The caller's process nonce belongs to an older incarnation."""
    checkpoints: tuple[RecordedCheckpoint, ...]
    digest_of: dict[str, str]
    """Manifest digest of each recorded directory that has one."""
    inputs: wire.Inputs | None
    total_steps: int
    """0 while not prepared."""
    allow_restart_from_zero: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to write."""

    repeat: bool
    """The same process asked before: answer with the incarnation that stands."""
    step: int = 0
    directory: str = ""
    known: bool = False
    """The commit of the presented checkpoint is on record: rows of windows up to it are right as they are."""
    struck: tuple[str, ...] = ()
    """Directories that become struck now."""


def decide(request: wire.ReconcileRequest, known: Knowledge, *, receipt_valid: bool) -> Plan:
    """Decide. Raises `Fenced` for an old attempt or epoch, `Closed` for a process that had its turn, `Conflict` for a
    checkpoint that cannot be believed, `CheckpointsLost`, and `UserError` when the inputs are not the checkpoint's."""
    if request.attempt < known.attempt:
        raise Fenced(f"attempt {request.attempt} is over: attempt {known.attempt} has begun")
    newest = known.newest
    if newest is not None and newest.process == request.process and newest.attempt == request.attempt:
        if not newest.open:
            raise Closed(f"incarnation {newest.incarnation} of this process is closed")
        return Plan(repeat=True)
    if known.former_process:
        raise Closed("this process belongs to an incarnation that is closed")
    shown = request.checkpoint
    if shown is None:
        commits = [row for row in known.checkpoints if row.state == "committed"]
        if commits and not known.allow_restart_from_zero:
            raise CheckpointsLost(_lost_sentence(commits, request.refused))
        return Plan(repeat=False, struck=tuple(row.directory for row in known.checkpoints if row.state != "struck"))
    is_known = _believed(shown, known, receipt_valid=receipt_valid)
    if shown.attempt > request.attempt:
        raise Fenced(f"attempt {request.attempt} is over: checkpoint {shown.directory} is of attempt {shown.attempt}")
    _same_inputs(shown, known)
    struck = tuple(
        row.directory for row in known.checkpoints if row.state != "struck" and _is_off(row, shown, request.refused)
    )
    return Plan(repeat=False, step=shown.step, directory=shown.directory, known=is_known, struck=struck)


def _is_off(row: RecordedCheckpoint, shown: wire.PresentedCheckpoint, refused: Collection[str]) -> bool:
    return row.directory != shown.directory and (row.step > shown.step or row.directory in refused)


def _believed(shown: wire.PresentedCheckpoint, known: Knowledge, *, receipt_valid: bool) -> bool:
    """True when the commit is on record; raises unless it is or its receipt is ours."""
    if shown.store_epoch > known.store_epoch:
        raise Fenced(f"checkpoint {shown.directory} is of store epoch {shown.store_epoch}; this store is older")
    if shown.state.job_uid != known.job_uid or shown.state.step != shown.step:
        raise Conflict(f"the record inside {shown.directory} is of another job or step")
    rows = {row.directory: row for row in known.checkpoints}
    row = rows.get(shown.directory)
    by_digest = {digest: directory for directory, digest in known.digest_of.items()}
    recorded = by_digest.get(shown.manifest_digest)
    if (row is not None and row.state == "struck") or (recorded and rows[recorded].state == "struck"):
        raise Conflict(f"checkpoint {shown.directory} was struck: another line of history has passed it")
    if recorded is not None:
        return rows[recorded].state == "committed" and rows[recorded].step == shown.step
    if row is not None and known.digest_of.get(shown.directory):
        raise Conflict(f"the manifest of {shown.directory} is not the one whose commit is on record")
    if not receipt_valid:
        raise Conflict(f"checkpoint {shown.directory} has no valid receipt, and its commit is not on record")
    return False


def _same_inputs(shown: wire.PresentedCheckpoint, known: Knowledge) -> None:
    theirs, ours = shown.state.inputs, known.inputs
    if theirs is not None and ours is not None and theirs != ours:
        changed = [name for name in ours.__struct_fields__ if getattr(ours, name) != getattr(theirs, name)]
        raise UserError(
            f"the {' and '.join(changed)} of this job changed since checkpoint {shown.directory}: "
            "restore the old files, or start a new job"
        )
    if known.total_steps and shown.step > known.total_steps:
        raise UserError(f"checkpoint {shown.directory} is beyond the job's {known.total_steps} steps")


def _lost_sentence(commits: Iterable[RecordedCheckpoint], refused: tuple[str, ...]) -> str:
    newest = max(commits, key=lambda row: (row.store_epoch, row.step))
    detail = f" ({len(refused)} directories failed verification)" if refused else ""
    return (
        f"CheckpointsLost: step {newest.step} was committed as {newest.directory}, but no checkpoint can be "
        f"loaded{detail}; restore the checkpoint volume or set training.checkpoint.allowRestartFromZero"
    )


def windows_replayed(*, trained_step: int, checkpoint_step: int) -> int:
    """Windows that were trained and will be trained again."""
    return max(0, trained_step - checkpoint_step)
