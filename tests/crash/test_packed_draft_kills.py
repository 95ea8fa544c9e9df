"""The promise with packed micro-batches: two gloo ranks, kills, and a sample that spoils the pack it lies in."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from eyas_contract import wire
from eyas_contract.refs import PromptTask, SampleRef
from eyas_runtime.features.blobs.port import BlobStore
from support.draft_job import PROMPTS, draft_inputs, draft_job, prepared_of, put_features
from support.gang import Forge, MiniJob

pytestmark = pytest.mark.slow
PACK_TOKENS = 20
"""Samples have 5 to 11 tokens and windows four of them: two packs, one of which may hold three samples."""
POISONED = 6
KILLS = [(0, "train.after_backward=kill@2"), (1, "train.after_step=kill@2"), (0, "ckpt.after_receipt=kill")]
MakeRef = Callable[[PromptTask, BlobStore], SampleRef]


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    forge = Forge("eagle3")
    yield forge
    forge.close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return draft_inputs(tmp_path_factory.mktemp("inputs"))


def gang(folder: Path, forge: Forge, inputs: tuple[Path, Path], make_ref: MakeRef, **training: object) -> MiniJob:
    config = draft_job(folder, inputs, **training)
    return MiniJob(
        folder, forge, world_size=2, config=config, prepared=prepared_of(config), make_ref=make_ref, trainer="eagle3"
    )


def finished(job: MiniJob) -> tuple[str, list[float]]:
    """The weights' digest, and the loss of every step."""
    status = job.status()
    assert status.phase == "Complete", job.logs()
    assert status.exact
    steps = job.client.call(wire.METRICS, wire.MetricsRequest()).steps
    return status.weights_sha256, [step.values["loss"] for step in steps]


@pytest.fixture(scope="module")
def undisturbed(
    forge: Forge, inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[float]]:
    with gang(tmp_path_factory.mktemp("packed"), forge, inputs, put_features(), packing_tokens=PACK_TOKENS) as job:
        job.run(lives_max=1)
        return finished(job)


def test_packing_changes_losses_by_rounding_only(
    forge: Forge, inputs: tuple[Path, Path], undisturbed: tuple[str, list[float]], tmp_path: Path
) -> None:
    with gang(tmp_path, forge, inputs, put_features()) as job:
        job.run(lives_max=1)
        _, padded = finished(job)
    assert undisturbed[1] == pytest.approx(padded, rel=1e-4)


@pytest.mark.parametrize(("rank", "failpoint"), KILLS, ids=[f"rank{rank}-{name}" for rank, name in KILLS])
def test_a_killed_rank_changes_no_bit_of_a_packed_training(
    forge: Forge,
    inputs: tuple[Path, Path],
    undisturbed: tuple[str, list[float]],
    tmp_path: Path,
    rank: int,
    failpoint: str,
) -> None:
    with gang(tmp_path, forge, inputs, put_features(), packing_tokens=PACK_TOKENS) as job:
        job.run([{rank: failpoint}])
        assert job.lives[0].codes[rank] == -9, "the kill happened"
        assert finished(job) == undisturbed


def spoil(task: PromptTask, features: dict[str, torch.Tensor]) -> None:
    """Finite features whose loss is not: only the training itself can tell."""
    if task.sequence == POISONED:
        features["target"] = features["target"] * 1e38


def test_only_the_sample_that_spoils_its_pack_is_condemned_and_a_kill_changes_nothing(
    forge: Forge, inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    results = []
    for name, failpoints in (("clean", []), ("killed", [{0: "train.after_step=kill@2"}])):
        with gang(tmp_path / name, forge, inputs, put_features(spoil), packing_tokens=PACK_TOKENS) as job:
            job.run(failpoints)
            audit, letters = job.audit(), job.status().dead_letters
            assert [(letter.sequence, letter.source) for letter in letters] == [(POISONED, "rank")]
            assert (audit.trained_once, audit.trained_twice, audit.dead_lettered) == (PROMPTS - 1, 0, 1)
            results.append(finished(job))
    assert results[0] == results[1]
