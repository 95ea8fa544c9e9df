"""Periodic evaluation under kills: it changes no weight, and no kill changes what it says or which checkpoint is best.

The fake trainer's losses hang on the weights and on the bytes of every held-out sample. The job has 14 prompts in
windows of 4 and 5 held-out ones, evaluated after every second step: windows 1 2 E E 3 4 E E.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from eyas_contract import wire
from eyas_contract.config import EvaluationConfig
from eyas_runtime.checkpoint import manifest as manifests
from eyas_runtime.checkpoint.store import CheckpointRoot
from support.gang import Forge, MiniJob, sample_bytes
from support.metadata_service import job_config, prepared_inputs

PROMPTS, HELD_OUT, WINDOW = 14, 5, 4
WINDOWS, STEPS, ROUNDS = 8, 4, 2
Curve = tuple[tuple[int, int, float], ...]


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    forge = Forge()
    yield forge
    forge.close()


@pytest.fixture(scope="module")
def without(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of the same job without evaluation."""
    with mini(tmp_path_factory.mktemp("without"), forge, 1, evaluate=False) as job:
        job.run(lives_max=1)
        assert job.status().durable_step == STEPS
        return job.status().weights_sha256


@pytest.fixture(scope="module")
def curve(forge: Forge, without: str, tmp_path_factory: pytest.TempPathFactory) -> Curve:
    """What the evaluations of the run that nobody touched say."""
    with mini(tmp_path_factory.mktemp("undisturbed"), forge, 1) as job:
        job.run(lives_max=1)
        return finished(job, without)


def mini(folder: Path, forge: Forge, world_size: int, *, evaluate: bool = True) -> MiniJob:
    config = job_config(folder, window_size=WINDOW, every_steps=2)
    prepared = prepared_inputs([5 + i % 7 for i in range(PROMPTS + HELD_OUT * evaluate)])
    if evaluate:
        evaluation = EvaluationConfig(prompts=("held-out.jsonl",), every_steps=2)
        config = msgspec.structs.replace(config, evaluation=evaluation)
        prepared = msgspec.structs.replace(prepared, prompt_count=PROMPTS, held_out_count=HELD_OUT)
    return MiniJob(
        folder,
        forge,
        world_size=world_size,
        config=config,
        prepared=prepared,
        capture=lambda task: sample_bytes(task.prompt_index),
    )


def finished(job: MiniJob, weights: str) -> Curve:
    """The curve of a job that must be complete, with the weights of the one without evaluation."""
    status, audit = job.status(), job.audit()
    assert (status.phase, status.durable_step, status.durable_training_step) == ("Complete", WINDOWS, STEPS)
    assert status.weights_sha256 == weights
    assert (audit.trained_once, audit.evaluated_once) == (PROMPTS, ROUNDS * HELD_OUT)
    assert (audit.trained_twice, audit.missing) == (0, 0)
    root = CheckpointRoot(job.checkpoints, job.config.job_uid)
    raw = root.manifest_bytes(status.checkpoint_directory)
    assert raw is not None
    state = manifests.decode(raw).evaluation
    assert state is not None
    assert state.best is not None
    lowest = min(state.points, key=lambda point: point.eval_loss)
    assert (state.best.step, state.best.eval_loss) == (lowest.step, lowest.eval_loss)
    assert state.best == root.best() == status.best
    assert root.manifest_bytes(state.best.directory) is not None, "the best checkpoint is gone"
    steps = job.client.call(wire.METRICS, wire.MetricsRequest()).steps
    told = {entry.step: entry.values["eval_loss"] for entry in steps if "eval_loss" in entry.values}
    assert told == {point.step: point.eval_loss for point in state.points}
    assert state.sums == ()
    return tuple((point.step, point.training_step, point.eval_loss) for point in state.points)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_changes_no_weight_and_no_number_of_ranks_changes_it(
    forge: Forge, without: str, curve: Curve, tmp_path: Path, world_size: int
) -> None:
    with mini(tmp_path, forge, world_size) as job:
        job.run(lives_max=1)
        assert finished(job, without) == curve
    assert [(step, training) for step, training, _ in curve] == [(4, 2), (8, 4)]
    assert len({loss for _, _, loss in curve}) == ROUNDS, "the weights moved, so must the loss"


@pytest.mark.parametrize(
    "failpoint",
    [
        "train.after_backward=kill@3",
        "train.after_backward=kill@4",
        "train.after_step=kill@3",
        "train.after_step=kill@4",
        "train.after_step=kill@8",
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_kill_in_an_evaluation_changes_neither_weights_nor_metrics(
    forge: Forge, without: str, curve: Curve, tmp_path: Path, failpoint: str, rank: int
) -> None:
    with mini(tmp_path, forge, 2) as job:
        job.run([{rank: failpoint}])
        assert len(job.lives) == 2
        assert finished(job, without) == curve


def test_first_half_of_a_round_is_remembered_by_the_checkpoint_inside_it(
    forge: Forge, without: str, curve: Curve, tmp_path: Path
) -> None:
    """Checkpoints come after windows 1 and 3: the second life starts between the two windows of a round."""
    with mini(tmp_path, forge, 1) as job:
        job.one_life({0: "train.before_step=kill@4"})
        while job.status().durable_step < 3:
            job.one_life({0: "train.before_step=kill@2"})
        assert job.status().durable_step == 3
        job.run()
        assert finished(job, without) == curve


def test_lost_volume_in_an_evaluation_loses_neither_curve_nor_best(
    forge: Forge, without: str, curve: Curve, tmp_path: Path
) -> None:
    with mini(tmp_path, forge, 2) as job:
        job.one_life({0: "train.after_backward=kill@7"})
        assert job.status().best is not None
        job.restart_with_a_new_volume()
        job.attempt = 2
        job.run()
        assert finished(job, without) == curve


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "rank"), [(1, 0), (2, 1)])
def test_kill_at_any_failpoint_changes_neither_weights_nor_metrics(
    forge: Forge, without: str, curve: Curve, tmp_path: Path, world_size: int, rank: int
) -> None:
    with mini(tmp_path / "count", forge, world_size) as job:
        job.run(lives_max=1)
        count = len(job.hits(rank))
    assert count > 40
    for number in range(1, count + 1):
        with mini(tmp_path / str(number), forge, world_size) as job:
            job.run([{rank: f"*=kill@{number}"}])
            assert finished(job, without) == curve, f"killed at hit {number}: {job.hits(rank)[:number]}"
