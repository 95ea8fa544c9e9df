"""The decision of reconcile over the whole product of small worlds: total, and never a step it cannot stand for."""

from itertools import product

import pytest

from eyas_contract import wire
from eyas_contract.errors import EyasError
from eyas_contract.ids import Incarnation, JobUid
from eyas_runtime.core.recovery import (
    CheckpointsLost,
    Knowledge,
    NewestGang,
    Plan,
    decide,
    windows_replayed,
)
from eyas_runtime.core.retention import RecordedCheckpoint
from support.jobs import fingerprint, inputs

JOB = JobUid("testjob0001")


def _shown(step: int, *, attempt: int = 1, epoch: int = 1, digest: str = "") -> wire.PresentedCheckpoint:
    state = wire.CheckpointState(
        job_uid=JOB, store_epoch=epoch, step=step, inputs=inputs(), dead_letters=(), capture_fingerprint="",
        inexact_reasons=(), generation_floor=1, attempt=attempt,
    )  # fmt: skip
    return wire.PresentedCheckpoint(
        directory=f"d{step}", step=step, store_epoch=epoch, attempt=attempt, incarnation=Incarnation("i"),
        manifest_digest=digest or f"m{step}", receipt="r", state=state,
    )  # fmt: skip


def _request(
    shown: wire.PresentedCheckpoint | None, *, attempt: int = 1, process: str = "new"
) -> wire.ReconcileRequest:
    return wire.ReconcileRequest(
        attempt=attempt, world_size=1, process=process, fingerprint=fingerprint(), checkpoint=shown
    )


def _row(step: int, state: str) -> RecordedCheckpoint:
    return RecordedCheckpoint(directory=f"d{step}", step=step, store_epoch=1, state=state)  # type: ignore[arg-type]


def _known(
    rows: tuple[RecordedCheckpoint, ...] = (),
    *,
    attempt: int = 0,
    newest: NewestGang | None = None,
    allow: bool = False,
) -> Knowledge:
    return Knowledge(
        job_uid=JOB,
        store_epoch=1,
        attempt=attempt,
        newest=newest,
        former_process=False,
        checkpoints=rows,
        digest_of={row.directory: f"m{row.step}" for row in rows if row.state != "listed"},
        inputs=inputs(),
        total_steps=100,
        allow_restart_from_zero=allow,
    )


STATES = (None, "listed", "committed", "struck")
WORLDS = list(
    product(STATES, STATES, (None, 1, 2), (True, False), (True, False), (0, 1, 2), (None, True, False))
)  # two directories, what is shown, receipt, permission, attempt on record, newest gang (none, open, closed)


def _outcome(world: tuple[object, ...]) -> tuple[Knowledge, wire.ReconcileRequest, Plan | EyasError]:
    first, second, step, valid, allow, attempt, gang_open = world
    rows = tuple(_row(number, str(state)) for number, state in ((1, first), (2, second)) if state)
    newest = None
    if gang_open is not None:
        newest = NewestGang(
            incarnation=Incarnation("g"), attempt=int(str(attempt)), process="old", open=bool(gang_open)
        )
    known = _known(rows, attempt=int(str(attempt)), newest=newest, allow=bool(allow))
    request = _request(None if step is None else _shown(int(str(step))))
    try:
        return known, request, decide(request, known, receipt_valid=bool(valid))
    except EyasError as error:
        return known, request, error


def test_every_world_has_a_decision_and_it_is_sound() -> None:
    plans = 0
    for world in WORLDS:
        known, request, outcome = _outcome(world)
        states = {row.directory: row.state for row in known.checkpoints}
        if not isinstance(outcome, Plan):
            assert type(outcome).__name__ in {"Fenced", "Closed", "Conflict", "CheckpointsLost"}, world
            continue
        plans += 1
        assert request.attempt >= known.attempt, "an older attempt may do nothing"
        if outcome.step:
            assert states.get(outcome.directory) != "struck"
            assert world[3] or states.get(outcome.directory) == "committed", "no receipt, and no commit on record"
            assert outcome.known is (states.get(outcome.directory) == "committed")
        else:
            assert known.allow_restart_from_zero or "committed" not in states.values()
        above = {row.directory for row in known.checkpoints if row.step > outcome.step}
        struck = {name for name, state in states.items() if state == "struck"} | set(outcome.struck)
        assert above <= struck, "a candidate above the start survives"
        assert outcome.directory not in outcome.struck
    assert plans > 100, "the worlds must not all be refusals"


def test_lost_checkpoints_are_named() -> None:
    with pytest.raises(CheckpointsLost, match=r"step 2 was committed as d2.*allowRestartFromZero"):
        decide(_request(None), _known((_row(1, "committed"), _row(2, "committed"))), receipt_valid=False)


@pytest.mark.parametrize(("trained", "checkpoint", "replayed"), [(9, 4, 5), (4, 4, 0), (3, 4, 0)])
def test_replay_is_what_was_trained_and_is_not_in_the_checkpoint(trained: int, checkpoint: int, replayed: int) -> None:
    assert windows_replayed(trained_step=trained, checkpoint_step=checkpoint) == replayed
