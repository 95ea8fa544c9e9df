"""What the stores say of a job's state and of its returns to a checkpoint. Pure; the same words in every store.

Only words: which samples move, and what is written, every store decides for itself.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from eyas_contract import wire
from eyas_contract.states import Phase
from eyas_contract.words import counted
from eyas_runtime.metadata.port import Suspect

_NAMES_MAX: Final = 8
_REASONS_MAX: Final = 4


def phase_of(*, failure: str, durable_step: int, total_steps: int) -> Phase:
    """The job's phase; `total_steps` is 0 while it is not prepared."""
    if failure:
        return Phase.FAILED
    if not total_steps:
        return Phase.PREPARING
    return Phase.COMPLETE if durable_step == total_steps else Phase.RUNNING


def suspects_in_words(suspects: Sequence[Suspect]) -> tuple[str, ...]:
    """One line a group."""
    return tuple(
        f"group {suspect.group} (prompts {', '.join(map(str, suspect.prompts))}): "
        f"{counted(suspect.deaths, 'producer')} died"
        for suspect in suspects
    )


def samples_lost(count: int, *, first: int, reasons: Sequence[str]) -> str:
    """What ranks found missing; `first` is the lowest sequence number."""
    which = f"{count} samples, the first is" if count != 1 else "1 sample,"
    return f"{which} {first}: {'; '.join(reasons[:_REASONS_MAX])}"


def replaced_by(attempt: int, *, former_attempt: int) -> str:
    """Why an open incarnation was closed by a reconcile of `attempt`."""
    word = "the same attempt" if former_attempt == attempt else f"attempt {attempt}"
    return f"the ranks were started again by {word}"


def inexact_computations(request: wire.ReconcileRequest, *, fingerprint: str, world_size: int) -> Iterator[str]:
    """How this start differs from the one that fixed `fingerprint` and `world_size` (0: unknown) of the line."""
    digest = request.fingerprint.digest
    if digest != fingerprint:
        yield (f"trainingFingerprint: attempt {request.attempt} computes on {digest}, the line began on {fingerprint}")
    if world_size and request.world_size != world_size:
        yield f"worldSize: {request.world_size} ranks, the line began with {world_size}"


def job_failed(message: str, *, now: float) -> wire.Incident:
    """The job ends here."""
    return wire.Incident(klass="JobFailed", unit="job", message=message, detected=now)


def checkpoint_struck(directory: str, *, step: int, now: float) -> wire.Incident:
    """A committed checkpoint above the step to which the ranks went back."""
    message = f"checkpoint {directory} is off the line for ever: the ranks start from step {step}"
    return wire.Incident(klass="CheckpointStruck", unit=directory, message=message, detected=now, step=step)


def checkpoints_refused(refused: Sequence[str], *, step: int, now: float) -> wire.Incident:
    """Directories that failed verification."""
    message = f"{counted(len(refused), 'checkpoint')} failed verification: {', '.join(refused[:_NAMES_MAX])}"
    return wire.Incident(klass="CheckpointRefused", unit="checkpoints", message=message, detected=now, step=step)


def metadata_restored(shown: wire.PresentedCheckpoint, *, now: float) -> wire.Incident:
    """The rows came from a manifest, because the store had lost them."""
    message = f"rows up to step {shown.step} were taken from the record in {shown.directory}"
    return wire.Incident(klass="MetadataRestored", unit="metadata", message=message, detected=now, step=shown.step)
