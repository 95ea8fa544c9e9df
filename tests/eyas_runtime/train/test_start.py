"""Claiming a checkpoint folder, and who a rank is: mistakes of the user and unmounted volumes are told apart."""

from pathlib import Path
from typing import cast

import pytest

from eyas_contract import env, wire
from eyas_contract.client import MetadataClient
from eyas_contract.errors import Transient, UserError
from eyas_contract.ids import Incarnation, JobUid
from eyas_runtime.checkpoint.names import ROOT_MARKER
from eyas_runtime.checkpoint.store import CheckpointRoot
from eyas_runtime.train.start import Origin, claim, read_identity, reconcile
from support.checkpoints import JOB, known, make_root, save_checkpoint
from support.metadata_service import FINGERPRINT, job_config

IDENTITY = {
    env.RANK: "1",
    env.LOCAL_RANK: "0",
    env.WORLD_SIZE: "2",
    env.ATTEMPT: "3",
    env.PROCESS: "ab" * 16,
}


def claim_quickly(root: CheckpointRoot, *checkpoints: wire.KnownCheckpoint, allow_zero: bool = False) -> list[float]:
    pauses: list[float] = []
    claim(root, checkpoints, allow_zero=allow_zero, pause=pauses.append)
    return pauses


def test_a_new_folder_is_marked_before_anything_is_trained(tmp_path: Path) -> None:
    root = CheckpointRoot(tmp_path / "new", JOB)
    claim_quickly(root)
    assert root.has_marker()


def test_a_marked_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    before = (root.path / ROOT_MARKER).stat().st_ino
    assert claim_quickly(root) == []
    assert (root.path / ROOT_MARKER).stat().st_ino == before


def test_an_empty_mount_never_means_start_at_step_zero(tmp_path: Path) -> None:
    root = make_root(tmp_path / "real")
    request = save_checkpoint(root, 5)
    empty = CheckpointRoot(tmp_path / "empty", JOB)
    with pytest.raises(Transient, match="mounted"):
        claim_quickly(empty, known(request))
    assert not empty.path.exists()


def test_only_the_job_itself_may_allow_a_start_from_zero(tmp_path: Path) -> None:
    request = save_checkpoint(make_root(tmp_path / "real"), 5)
    empty = CheckpointRoot(tmp_path / "empty", JOB)
    claim_quickly(empty, known(request), allow_zero=True)
    assert empty.has_marker()


def test_checkpoints_without_a_marker_are_not_adopted(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    save_checkpoint(root, 5)
    (root.path / ROOT_MARKER).unlink()
    with pytest.raises(Transient, match="no marker"):
        claim_quickly(root)
    assert not root.has_marker()


def test_the_folder_of_another_job_is_refused_at_once(tmp_path: Path) -> None:
    make_root(tmp_path)
    with pytest.raises(UserError, match="give this job its own"):
        claim_quickly(CheckpointRoot(tmp_path / "checkpoints", JobUid("otherjob1")))


def test_a_mount_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    request = save_checkpoint(make_root(tmp_path), 5)
    real = tmp_path / "checkpoints"
    away = tmp_path / "away"
    real.rename(away)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            away.rename(real)

    claim(CheckpointRoot(real, JOB), (known(request),), allow_zero=False, pause=pause)
    assert len(pauses) == 2


def test_a_rank_knows_itself_from_its_environment() -> None:
    identity = read_identity(IDENTITY)
    assert (identity.rank, identity.world_size, identity.attempt, identity.process) == (1, 2, 3, "ab" * 16)


@pytest.mark.parametrize("name", sorted(IDENTITY))
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(UserError, match=name):
        read_identity({key: value for key, value in IDENTITY.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"), [(env.RANK, "2"), (env.RANK, "-1"), (env.WORLD_SIZE, "0"), (env.ATTEMPT, "one")]
)
def test_an_impossible_rank_is_named(name: str, value: str) -> None:
    with pytest.raises(UserError, match=name):
        read_identity({**IDENTITY, name: value})


class BelievingService:
    """Answers rank 0 at its start: knows these checkpoints, and believes what is presented."""

    def __init__(self, *checkpoints: wire.KnownCheckpoint) -> None:
        self.known = checkpoints

    def call(self, endpoint: object, request: object) -> object:
        if endpoint is wire.CHECKPOINTS:
            return wire.CheckpointsReply(known=self.known)
        assert isinstance(request, wire.ReconcileRequest)
        shown = request.checkpoint
        return wire.ReconcileReply(
            incarnation=Incarnation("b2" * 16),
            store_epoch=1,
            checkpoint_step=0 if shown is None else shown.step,
            checkpoint_directory="" if shown is None else shown.directory,
            receipt="" if shown is None else shown.receipt,
            total_steps=0,
        )


def start(root: CheckpointRoot, *checkpoints: wire.KnownCheckpoint) -> Origin:
    client = cast("MetadataClient", BelievingService(*checkpoints))
    return reconcile(
        client, root, read_identity({**IDENTITY, env.RANK: "0"}), job_config(root.path), lambda: FINGERPRINT
    )


def best_of(step: int) -> wire.EvaluationState:
    best = wire.Best(directory=f"step-{step}", step=step, training_step=step, eval_loss=float(step))
    return wire.EvaluationState(best=best)


@pytest.mark.parametrize("step", [0, 3])
def test_ranks_that_go_back_to_before_the_first_evaluation_have_no_best_checkpoint(tmp_path: Path, step: int) -> None:
    root = make_root(tmp_path)
    checkpoints = [known(save_checkpoint(root, step))] if step else []
    left_behind = best_of(9).best
    assert left_behind is not None
    root.store_best(left_behind)
    for _ in range(2):
        assert start(root, *checkpoints).step == step
        assert root.best() is None


def test_ranks_that_go_back_name_the_best_checkpoint_of_their_own_line(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    request = save_checkpoint(root, 5, evaluation=best_of(4))
    left_behind = best_of(9).best
    assert left_behind is not None
    root.store_best(left_behind)
    assert start(root, known(request)).step == 5
    assert root.best() == best_of(4).best
