"""Periodic evaluation, with the real command and real processes: it changes no weight, and a kill changes no metric."""

import json
from pathlib import Path
from typing import Any

import pytest

from eyas_contract import wire
from support.local_job import LocalJob, local_job
from support.tiny_target import make_tiny_target, write_tiny_prompts

pytestmark = pytest.mark.slow
PROMPTS, HELD_OUT, EVERY = 40, 6, 4
STEPS = PROMPTS // 4
ROUNDS = 3
"""After steps 4, 8 and 10, two windows each: the second one is short."""
EVALUATION = {"evaluation": {"prompts": ["/data/held-out.jsonl"], "everySteps": EVERY}}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    make_tiny_target(folder / "models" / "tiny")
    (folder / "data").mkdir()
    write_tiny_prompts(folder / "data" / "all.jsonl", PROMPTS + HELD_OUT)
    lines = (folder / "data" / "all.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "data" / "prompts.jsonl").write_bytes(b"".join(lines[:PROMPTS]))
    (folder / "data" / "held-out.jsonl").write_bytes(b"".join(lines[PROMPTS:]))
    return {"models": folder / "models", "data": folder / "data"}


def curve(job: LocalJob) -> dict[int, dict[str, float]]:
    """Evaluation metrics by optimizer step, without how long anything took."""
    return {
        entry.training_step: {name: value for name, value in entry.values.items() if name.startswith("eval_")}
        for entry in job.run.metrics()
        if entry.evaluation and "eval_loss" in entry.values
    }


@pytest.fixture(scope="module")
def undisturbed(
    volumes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[int, dict[str, float]]]:
    with local_job(tmp_path_factory.mktemp("undisturbed"), volumes, **EVALUATION) as job:
        result = job.finish()
        assert_kept(job, result)
        return result, curve(job)


def assert_kept(job: LocalJob, result: dict[str, Any]) -> None:
    """The best checkpoint is there under its name, beside the newest ones, and nothing is left in the store."""
    root = next((job.workdir / "claims").glob("*checkpoints*"))
    found = json.loads(next(root.rglob("best.json")).read_text())
    best = wire.Best(**found)
    assert (best.training_step, best.eval_loss) == (result["best"]["step"], result["best"]["evalLoss"])
    directory = next(root.rglob(best.directory))
    assert (directory / "manifest.json").is_file()
    audit = job.audit()
    assert (audit["trainedOnce"], audit["evaluatedOnce"]) == (PROMPTS, ROUNDS * HELD_OUT)
    assert (audit["trainedTwice"], audit["missing"]) == (0, 0)
    assert (result["samplesTrained"], result["samplesEvaluated"]) == (PROMPTS, ROUNDS * HELD_OUT)
    assert (audit["residentObjects"], audit["liveLeases"]) == (0, 0)


def test_evaluation_changes_no_weight(
    volumes: dict[str, Path],
    undisturbed: tuple[dict[str, Any], dict[int, dict[str, float]]],
    tmp_path: Path,
) -> None:
    with local_job(tmp_path, volumes) as job:
        without = job.finish()
    result, found = undisturbed
    assert (result["state"], result["exact"], result["steps"]) == ("Complete", True, STEPS)
    assert result["weightsSha256"] == without["weightsSha256"]
    assert "best" not in without
    assert sorted(found) == [4, 8, 10]
    assert {values["eval_live_samples"] for values in found.values()} == {float(HELD_OUT)}
    losses = {step: values["eval_loss"] for step, values in found.items()}
    assert result["best"]["evalLoss"] == min(losses.values())
    assert losses[result["best"]["step"]] == min(losses.values())
    assert "eval_acceptance_0" in found[4]


def test_kill_of_the_ranks_in_an_evaluation_changes_neither_weights_nor_metrics(
    volumes: dict[str, Path],
    undisturbed: tuple[dict[str, Any], dict[int, dict[str, float]]],
    tmp_path: Path,
) -> None:
    """The failpoint is met once a window: both ranks die in window 6, the second one of the first evaluation."""
    expected, metrics = undisturbed
    armed = tmp_path / "failpoints"
    armed.write_text("train.after_backward=kill@6")
    with local_job(tmp_path, volumes, {"EYAS_FAILPOINTS": f"@{armed}"}, **EVALUATION) as job:
        job.wait_until("an incident", lambda: (status := job.status()) is not None and status.incidents)
        armed.write_text("")
        result = job.finish()
        assert result["incidents"], "nobody was killed"
        assert result["weightsSha256"] == expected["weightsSha256"]
        assert result["best"]["step"] == expected["best"]["step"]
        assert result["best"]["evalLoss"] == expected["best"]["evalLoss"]
        assert curve(job) == metrics
        assert_kept(job, result)
