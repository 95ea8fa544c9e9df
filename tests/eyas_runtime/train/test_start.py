"""Claiming a checkpoint folder, and who a rank is: mistakes of the user and unmounted volumes are told apart."""

from pathlib import Path

import pytest

from eyas_contract import env, wire
from eyas_contract.errors import Transient, UserError
from eyas_contract.ids import JobUid
from eyas_runtime.checkpoint.names import ROOT_MARKER
from eyas_runtime.checkpoint.store import CheckpointRoot
from eyas_runtime.train.start import claim, read_identity
from support.checkpoints import JOB, known, make_root, save_checkpoint

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
