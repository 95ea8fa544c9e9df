"""The promise itself, with the real command and real processes: kill anything, get the same weights.

The reference is a run that nobody touched. Each disturbed run must end `Complete` with the same SHA-256, every sample
trained once, and nothing left in the store.
"""

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from support.feature_files import write_feature_files
from support.local_job import LocalJob, local_job
from support.tiny_target import make_tiny_target, write_tiny_prompts

pytestmark = pytest.mark.slow
PROMPTS = 160
WINDOW = 4
STEPS = PROMPTS // WINDOW
KILLS = (4, 14, 24)
"""Steps at which something is killed; each time there is work left that needs it."""
MOONCAKE = {
    "store.backend": "Mooncake",
    "store.mooncake": {"nodes": {"replicas": 1, "segmentSize": "128Mi"}},
}
ROLES = ("producer", "consumer", "metadata", "store-master", "store-node")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    make_tiny_target(folder / "models" / "tiny")
    (folder / "data").mkdir()
    write_tiny_prompts(folder / "data" / "prompts.jsonl", PROMPTS)
    return {"models": folder / "models", "data": folder / "data"}


@pytest.fixture(scope="module")
def undisturbed(volumes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with local_job(tmp_path_factory.mktemp("undisturbed"), volumes) as job:
        result = job.finish()
    assert (result["state"], result["exact"], result["steps"]) == ("Complete", True, STEPS)
    assert result["samplesTrained"] == PROMPTS
    return result


def assert_same(job: LocalJob, result: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    assert result["state"] == "Complete"
    assert result["weightsSha256"] == undisturbed["weightsSha256"]
    assert result["exact"] is True
    audit = job.audit()
    assert (audit["trainedOnce"], audit["trainedTwice"], audit["missing"]) == (PROMPTS, 0, 0)
    assert (audit["residentObjects"], audit["residentBytes"], audit["liveLeases"]) == (0, 0, 0)
    assert job.run.processes() == ()


def test_the_store_does_not_change_the_weights(
    volumes: dict[str, Path], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    with local_job(tmp_path, volumes, **MOONCAKE) as job:
        assert_same(job, job.finish(), undisturbed)


@pytest.mark.parametrize("role", ROLES)
def test_three_kills_of_a_role_change_nothing(
    role: str, volumes: dict[str, Path], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    with local_job(tmp_path, volumes, **MOONCAKE) as job:
        killed: set[int] = set()
        for step in KILLS:
            job.wait_for_step(step)
            killed.update(job.kill(role))
        result = job.finish()
        assert_same(job, result, undisturbed)
        assert len(killed) >= 3
        unit = "consumers" if role == "consumer" else role
        told = [it for it in result["incidents"] if it["class"] == "ChildExited" and it["unit"].startswith(unit)]
        # All ranks of a gang die of one kill; of any other role each process is a restart of its own.
        assert len(told) == (len(KILLS) if role == "consumer" else len(killed)), "one incident for each kill"
        assert {it["outcome"] for it in told} == {"Recovered"}


def test_the_whole_tree_killed_and_started_again_changes_nothing(
    volumes: dict[str, Path], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    with local_job(tmp_path, volumes, **MOONCAKE) as job:
        for step in KILLS[:2]:
            job.wait_for_step(step)
            job.kill_tree()
            job.start()
        result = job.finish()
        assert_same(job, result, undisturbed)
        assert "Hang" not in {it["class"] for it in result["incidents"]}, "the dead hang no more"
        assert job.start().finish()["weightsSha256"] == undisturbed["weightsSha256"]  # Complete already: exit 0.


def test_hazard_01_metadata_volume_deleted_in_mid_run_is_restored_from_the_newest_checkpoint(
    volumes: dict[str, Path], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    with local_job(tmp_path, volumes) as job:
        job.wait_for_step(6)
        claim = next((job.workdir / "claims").glob("*metadata*"))
        shutil.rmtree(claim)
        assert_same(job, job.finish(), undisturbed)


@pytest.mark.parametrize("role", ["producer", "consumer", "metadata"])
def test_hazard_25_a_paused_process_past_its_lease_changes_nothing(
    role: str, volumes: dict[str, Path], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    with local_job(tmp_path, volumes) as job:
        job.wait_for_step(3)
        index = 0 if role == "metadata" else 1
        paused = job.kill(role, number=signal.SIGSTOP, index=index)
        if role == "consumer":
            # A stopped rank stops everything: the service must find the hang and replace it.
            job.wait_until("the hang's incident", lambda: "Hang" in (job.workdir / "status.json").read_text())
        elif role == "producer":
            job.wait_for_step(STEPS - 8)
        _continue(paused)
        assert_same(job, job.finish(), undisturbed)


def _continue(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_every_sample_once_when_the_width_changes_between_restarts(volumes: dict[str, Path], tmp_path: Path) -> None:
    with local_job(tmp_path, volumes) as job:
        for step, processes in ((6, 1), (18, 3)):
            job.wait_for_step(step)
            job.kill_tree()
            text = job.job.read_text()
            job.job.write_text("\n".join(
                f"    processesPerPod: {processes}" if "processesPerPod" in line else line for line in text.splitlines()
            ))  # fmt: skip
            job.start()
        result = job.finish()
        audit = job.audit()
        assert (audit["trainedOnce"], audit["trainedTwice"], audit["missing"]) == (PROMPTS, 0, 0)
        assert result["state"] == "Complete"
        assert result["exact"] is False, "another world size gives other bits, and the job must say so"


def test_colocated_equals_disaggregated(volumes: dict[str, Path], undisturbed: dict[str, Any], tmp_path: Path) -> None:
    with local_job(tmp_path, volumes, mode="Colocated", **{"store.backend": "Memory"}) as job:
        assert job.finish()["weightsSha256"] == undisturbed["weightsSha256"]


def test_existing_feature_files_serve_two_epochs_through_the_same_path(
    volumes: dict[str, Path], tmp_path: Path
) -> None:
    files = 24
    write_feature_files(tmp_path / "data" / "features", files)
    folders = {"models": volumes["models"], "data": tmp_path / "data"}
    offline = {"data.prompts": None, "data.features": ["/data/features"], "data.epochs": 2}
    with local_job(tmp_path / "job", folders, **offline) as job:
        job.wait_for_step(4)
        job.kill("consumer")
        result = job.finish()
        audit = job.audit()
    assert (result["state"], result["exact"], result["samplesTrained"]) == ("Complete", True, 2 * files)
    assert (audit["trainedOnce"], audit["trainedTwice"], audit["missing"]) == (2 * files, 0, 0)
    assert result["samplesLostAndRecaptured"] == 0, "a second use of an ingested object was not believed"
