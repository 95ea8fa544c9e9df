"""The same promise with real torch: two gloo ranks train a tiny draft, either is killed at each named place.

A sample of what `test_gang_kills` does exhaustively: every failpoint of a step, of a checkpoint and of the way back.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from eyas_contract import wire
from eyas_contract.config import ParallelismConfig
from support.draft_job import PROMPTS, draft_inputs, draft_job, prepared_of, put_features
from support.gang import Forge, MiniJob

pytestmark = pytest.mark.slow
STEP = ("train.before_step", "train.after_backward", "train.after_step")
SHARD = ("ckpt.before_data", "ckpt.after_data")
RANK_ZERO = (
    "reconcile.before",
    "reconcile.after",
    "train.after_ack",
    "ckpt.after_manifest",
    "ckpt.after_dirsync",
    "ckpt.before_commit",
    "ckpt.after_commit",
    "ckpt.after_receipt",
)
PLACES = [(0, f"{name}=kill@2") for name in (*STEP, *SHARD)] + [(1, f"{name}=kill@2") for name in (*STEP, *SHARD)]
PLACES += [(0, f"{name}=kill") for name in RANK_ZERO]


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    forge = Forge("eagle3")
    yield forge
    forge.close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return draft_inputs(tmp_path_factory.mktemp("inputs"))


def draft_gang(
    folder: Path, forge: Forge, inputs: tuple[Path, Path], world_size: int = 2, **training: object
) -> MiniJob:
    config = draft_job(folder, inputs, **training)  # type: ignore[arg-type]
    return MiniJob(
        folder,
        forge,
        world_size=world_size,
        config=config,
        prepared=prepared_of(config),
        make_ref=put_features(),
        trainer="eagle3",
    )


def finished(job: MiniJob) -> tuple[str, list[float]]:
    """The weights' digest, and the loss of every step."""
    status, audit = job.status(), job.audit()
    assert status.phase == "Complete", job.logs()
    assert status.exact
    assert (audit.trained_once, audit.trained_twice, audit.missing) == (PROMPTS, 0, 0)
    steps = job.client.call(wire.METRICS, wire.MetricsRequest()).steps
    return status.weights_sha256, [step.values["loss"] for step in steps]


@pytest.fixture(scope="module")
def reference(
    forge: Forge, inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[float]]:
    with draft_gang(tmp_path_factory.mktemp("undisturbed"), forge, inputs) as job:
        job.run(lives_max=1)
        return finished(job)


@pytest.mark.parametrize(("rank", "failpoint"), PLACES, ids=[f"rank{rank}-{name}" for rank, name in PLACES])
def test_a_killed_rank_changes_neither_a_loss_nor_a_bit_of_the_weights(
    forge: Forge,
    inputs: tuple[Path, Path],
    reference: tuple[str, list[float]],
    tmp_path: Path,
    rank: int,
    failpoint: str,
) -> None:
    with draft_gang(tmp_path, forge, inputs) as job:
        job.run([{rank: failpoint}])
        assert job.lives[0].codes[rank] == -9, "the kill happened"
        assert finished(job) == reference


def test_one_rank_alone_is_exact_as_well(forge: Forge, inputs: tuple[Path, Path], tmp_path: Path) -> None:
    with draft_gang(tmp_path / "clean", forge, inputs, 1) as job:
        job.run(lives_max=1)
        clean = finished(job)
    with draft_gang(tmp_path / "killed", forge, inputs, 1) as job:
        job.run([{0: "train.after_step=kill@2"}, {0: "ckpt.after_data=kill"}, {0: "train.after_backward=kill"}])
        assert len(job.lives) == 4
        assert finished(job) == clean


SPLITS = [ParallelismConfig(sequence=2), ParallelismConfig(tensor=2)]


@pytest.mark.parametrize("parallelism", SPLITS, ids=["sequence", "tensor"])
def test_ranks_that_split_samples_are_exact_as_well(
    forge: Forge,
    inputs: tuple[Path, Path],
    reference: tuple[str, list[float]],
    tmp_path: Path,
    parallelism: ParallelismConfig,
) -> None:
    with draft_gang(tmp_path / "clean", forge, inputs, parallelism=parallelism) as job:
        job.run(lives_max=1)
        clean = finished(job)
    assert clean[1] == pytest.approx(reference[1], rel=1e-5)
    with draft_gang(tmp_path / "killed", forge, inputs, parallelism=parallelism) as job:
        job.run([{1: "train.after_backward=kill@2"}, {0: "ckpt.after_data=kill"}])
        assert finished(job) == clean


def test_another_number_of_ranks_reads_its_slices_and_says_that_bits_may_differ(
    forge: Forge, inputs: tuple[Path, Path], reference: tuple[str, list[float]], tmp_path: Path
) -> None:
    with draft_gang(tmp_path, forge, inputs, 3) as job:
        job.one_life({0: "ckpt.after_receipt=kill"})
        for world_size, failpoint in ((2, "ckpt.after_receipt=kill"), (1, "")):
            job.world_size = world_size
            job.replace_pods()
            job.one_life({0: failpoint})
        assert job.lives[-1].codes == {0: 0}, job.logs()
        status, audit = job.status(), job.audit()
        assert (audit.trained_once, audit.trained_twice, audit.missing) == (PROMPTS, 0, 0)
        assert not status.exact
        steps = job.client.call(wire.METRICS, wire.MetricsRequest()).steps
        assert [step.values["loss"] for step in steps] == pytest.approx(reference[1], rel=1e-5)


def test_a_stopped_rank_is_left_behind_by_the_next_life_and_can_do_nothing_when_it_wakes(
    forge: Forge, inputs: tuple[Path, Path], reference: tuple[str, list[float]], tmp_path: Path
) -> None:
    with draft_gang(tmp_path, forge, inputs) as job:
        started = job.start_ranks({0: "ckpt.before_commit=stop"})
        by_rank = {rank: (pid, process) for pid, (rank, process) in started.items()}
        job.wait_until_stopped(by_rank[0][0])
        # Its pod is thought lost: a new attempt takes over while it sleeps in front of its commit.
        os.kill(by_rank[1][0], signal.SIGKILL)
        job.forge.next_exit([by_rank[1][0]])
        job.replace_pods()
        job.run()
        assert finished(job) == reference
        directories = job.directories()
        os.kill(by_rank[0][0], signal.SIGCONT)
        _, code = job.forge.next_exit([by_rank[0][0]])
        assert code in (1, 86)
        assert job.directories() == directories
        assert job.client.call(wire.STATUS, wire.Empty()).phase == "Complete"
