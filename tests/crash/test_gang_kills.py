"""Kill any rank at every failpoint it passes, once and twice: the weights are those of the run that nobody touched.

Exhaustive with the fake trainer, whose weights are a hash of everything that was trained in order; the service, its
SQLite, the store, the loop and the checkpoints are the real ones.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from eyas_contract.config import RecoveryConfig
from support.gang import Forge, MiniJob, sample_bytes
from support.metadata_service import job_config

SPARED = ("metadata.", "release.", "sweep.", "capture.")
"""Failpoints of other roles."""
PROMPTS, WINDOW = 14, 4
STEPS = 4


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    forge = Forge()
    yield forge
    forge.close()


@pytest.fixture(scope="module")
def reference(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> str:
    with mini(tmp_path_factory.mktemp("undisturbed"), forge, 1) as job:
        job.run(lives_max=1)
        return finished_weights(job)


def mini(folder: Path, forge: Forge, world_size: int) -> MiniJob:
    return MiniJob(folder, forge, world_size=world_size, prompts=PROMPTS, window_size=WINDOW, every_steps=2)


def finished_weights(job: MiniJob) -> str:
    status, audit = job.status(), job.audit()
    assert status.phase == "Complete"
    assert (status.durable_step, status.acked_step) == (STEPS, STEPS)
    assert (audit.trained_once, audit.trained_twice, audit.missing, audit.dead_lettered) == (PROMPTS, 0, 0, 0)
    # keep is 2, and what the incarnation began with is never taken from under it.
    assert len(job.directories()) <= 3
    assert status.checkpoint_directory in job.directories()
    assert job.producer.error is None
    return status.weights_sha256


def hits_of(forge: Forge, folder: Path, world_size: int, rank: int) -> int:
    with mini(folder, forge, world_size) as job:
        job.run(lives_max=1)
        return len(job.hits(rank))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_number_of_ranks_does_not_change_what_is_trained(
    forge: Forge, reference: str, tmp_path: Path, world_size: int
) -> None:
    with mini(tmp_path, forge, world_size) as job:
        job.run(lives_max=1)
        assert finished_weights(job) == reference


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "rank"), [(1, 0), (2, 0), (2, 1)])
def test_a_kill_at_any_failpoint_changes_nothing(
    forge: Forge, reference: str, tmp_path: Path, world_size: int, rank: int
) -> None:
    count = hits_of(forge, tmp_path / "count", world_size, rank)
    assert count > 20
    for number in range(1, count + 1):
        with mini(tmp_path / str(number), forge, world_size) as job:
            job.run([{rank: f"*=kill@{number}"}])
            assert finished_weights(job) == reference, f"killed at hit {number}: {job.hits(rank)[:number]}"


@pytest.mark.slow
def test_a_second_kill_during_the_way_back_changes_nothing(forge: Forge, reference: str, tmp_path: Path) -> None:
    pairs = [(first, second) for first in range(3, 46, 6) for second in range(1, 12, 2)]
    for first, second in pairs:
        with mini(tmp_path / f"{first}-{second}", forge, 2) as job:
            job.run([{0: f"*=kill@{first}"}, {0: f"*=kill@{second}", 1: f"*=kill@{second + 3}"}])
            assert finished_weights(job) == reference, f"killed at {first}, then {second}"


@pytest.mark.slow
def test_an_error_of_the_disk_at_any_failpoint_of_a_checkpoint_changes_nothing(
    forge: Forge, reference: str, tmp_path: Path
) -> None:
    names = ["ckpt.before_data", "ckpt.after_data", "files.before_rename", "files.after_rename", "ckpt.after_manifest"]
    for name in names:
        for error in ("EIO", "ENOSPC"):
            with mini(tmp_path / f"{name}-{error}", forge, 2) as job:
                job.run([{0: f"{name}=error:{error}@2"}, {1: f"{name}=error:{error}"}])
                assert finished_weights(job) == reference, f"{error} at {name}"


@pytest.mark.slow
def test_the_ranks_go_on_when_the_service_dies_and_comes_back(forge: Forge, reference: str, tmp_path: Path) -> None:
    with mini(tmp_path, forge, 2) as job:
        job.one_life({0: "train.after_step=kill@3"})
        job.restart_service()
        job.run()
        assert finished_weights(job) == reference


def test_a_lost_metadata_volume_is_rebuilt_from_the_checkpoint(forge: Forge, reference: str, tmp_path: Path) -> None:
    with mini(tmp_path, forge, 2) as job:
        job.one_life({0: "ckpt.after_receipt=kill"})
        assert job.status().durable_step >= 1
        job.restart_with_a_new_volume()
        job.attempt = 2
        job.run()
        assert job.status().durable_step == STEPS
        assert job.status().weights_sha256 == reference
        assert job.hits().count("reconcile.after") == 2


def test_hazard_07_kill_after_the_commit_never_trains_its_windows_again(
    forge: Forge, reference: str, tmp_path: Path
) -> None:
    with mini(tmp_path, forge, 1) as job:
        job.one_life({0: "ckpt.after_commit=kill"})
        committed = job.status().durable_step
        assert committed >= 1
        (job.folder / "hits-0").unlink()
        job.run()
        assert job.hits().count("train.after_step") == STEPS - committed
        assert finished_weights(job) == reference


def test_a_receipt_that_was_not_stored_is_stored_at_the_next_start(
    forge: Forge, reference: str, tmp_path: Path
) -> None:
    with mini(tmp_path, forge, 1) as job:
        job.one_life({0: "ckpt.after_commit=kill"})
        (directory,) = [name for name in job.directories() if not (job.checkpoints / name / "receipt.json").exists()]
        job.one_life({0: "train.before_step=kill"})
        assert (job.checkpoints / directory / "receipt.json").exists()
        job.run()
        assert finished_weights(job) == reference


def test_a_damaged_newest_checkpoint_costs_windows_and_not_the_weights(
    forge: Forge, reference: str, tmp_path: Path
) -> None:
    with mini(tmp_path, forge, 2) as job:
        job.one_life({0: "ckpt.after_receipt=kill@2"})
        newest = job.status().checkpoint_directory
        shard = job.checkpoints / newest / "rank-00001-of-00002.safetensors"
        original = shard.read_bytes()
        shard.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        job.one_life({0: "train.before_step=kill"})
        assert (job.checkpoints / newest / "struck.json").exists()
        # It verifies again: it is of another line of history all the same.
        shard.write_bytes(original)
        job.run()
        assert finished_weights(job) == reference
        assert any(incident.klass == "CheckpointRefused" for incident in job.status().incidents)


@pytest.mark.parametrize(
    ("rank", "where"), [(1, "files.before_rename"), (0, "ckpt.after_data"), (0, "ckpt.after_dirsync")]
)
def test_what_a_killed_save_left_is_gone_before_the_next_save(
    forge: Forge, reference: str, tmp_path: Path, rank: int, where: str
) -> None:
    """A volume with room for one checkpoint more than are kept would be full for ever otherwise."""
    with mini(tmp_path, forge, 2) as job:
        job.one_life({rank: f"{where}=kill@2"})
        committed = job.status().checkpoint_directory
        assert len(job.directories()) == 2
        job.one_life({0: "train.before_step=kill"})
        assert job.directories() == [committed]
        job.run()
        assert finished_weights(job) == reference


def test_what_cannot_be_removed_is_struck_and_removed_later(forge: Forge, reference: str, tmp_path: Path) -> None:
    with mini(tmp_path, forge, 1) as job:
        job.one_life({0: "ckpt.after_data=kill@2"})
        (debris,) = [name for name in job.directories() if name != job.status().checkpoint_directory]
        job.one_life({0: "files.before_unlink=error:EBUSY;train.before_step=kill"})
        assert (job.checkpoints / debris / "struck.json").exists()
        job.one_life({0: "train.before_step=kill"})
        assert debris not in job.directories()
        job.run()
        assert finished_weights(job) == reference


def test_a_torn_feature_is_captured_again_and_not_trained(forge: Forge, reference: str, tmp_path: Path) -> None:
    with mini(tmp_path, forge, 2) as job:
        damaged: list[int] = []

        def tear() -> None:
            for path in sorted((job.folder / "store").rglob("eyas.*")):
                if path.is_file() and len(damaged) < 3:
                    path.write_bytes(path.read_bytes()[:-1] + b"?")
                    damaged.append(1)

        job.wait_for_samples(PROMPTS)
        tear()
        job.run()
        assert len(damaged) == 3
        assert finished_weights(job) == reference
        assert job.status().samples_recaptured == 3


def test_a_vanished_feature_is_captured_again(forge: Forge, reference: str, tmp_path: Path) -> None:
    with mini(tmp_path, forge, 2) as job:
        job.wait_for_samples(PROMPTS)
        for path in sorted((job.folder / "store").rglob("eyas.*"))[:5]:
            path.unlink()
        job.run()
        assert finished_weights(job) == reference


@pytest.mark.parametrize("mark", [b"<poison>", b"<poison-loss>"], ids=["content", "loss"])
def test_hazard_11_a_poisoned_sample_is_dead_lettered_once_and_a_kill_changes_nothing(
    forge: Forge, tmp_path: Path, mark: bytes
) -> None:
    def run(folder: Path, failpoints: list[dict[int, str]]) -> tuple[str, int]:
        job = MiniJob(
            folder,
            forge,
            world_size=2,
            prompts=PROMPTS,
            window_size=WINDOW,
            capture=lambda task: sample_bytes(task.sequence) + (mark if task.sequence in (2, 9) else b""),
        )
        with job:
            job.run(failpoints)
            status, audit = job.status(), job.audit()
            assert status.phase == "Complete"
            assert [letter.sequence for letter in status.dead_letters] == [2, 9]
            assert {letter.source for letter in status.dead_letters} == {"rank"}
            assert (audit.trained_once, audit.trained_twice, audit.dead_lettered) == (PROMPTS - 2, 0, 2)
            return status.weights_sha256, len(job.hits(1))

    clean, count = run(tmp_path / "clean", [])
    for number in range(1, count, 4):
        again, _ = run(tmp_path / str(number), [{1: f"*=kill@{number}"}])
        assert again == clean


def test_hazard_12_a_window_of_nothing_but_poison_advances_the_step_and_leaves_the_weights(
    forge: Forge, tmp_path: Path
) -> None:
    def weights(folder: Path, poisoned: range) -> str:
        job = MiniJob(
            folder,
            forge,
            world_size=2,
            prompts=8,
            window_size=4,
            capture=lambda task: sample_bytes(task.sequence) + (b"<poison>" if task.sequence in poisoned else b""),
        )
        with job:
            job.run()
            assert job.status().durable_step == 2
            return job.status().weights_sha256

    half = MiniJob(tmp_path / "half", forge, world_size=2, prompts=4, window_size=4)
    with half:
        half.run()
        one_window = half.status().weights_sha256
    assert weights(tmp_path / "two", range(4, 8)) == one_window


def test_another_world_size_goes_on_from_the_same_checkpoint(forge: Forge, reference: str, tmp_path: Path) -> None:
    with mini(tmp_path, forge, 3) as job:
        job.one_life({0: "ckpt.after_receipt=kill"})
        job.world_size, job.attempt = 2, 2
        job.one_life({1: "train.after_step=kill"})
        job.world_size, job.attempt = 1, 3
        job.run()
        assert finished_weights(job) == reference
        assert not job.status().exact, "another world size gives other bits in real training, and it is said"


def test_an_old_attempt_is_fenced_and_changes_nothing(forge: Forge, reference: str, tmp_path: Path) -> None:
    with mini(tmp_path, forge, 1) as job:
        job.attempt = 2
        job.one_life({0: "ckpt.after_receipt=kill"})
        before = job.directories()
        job.attempt = 1
        assert job.one_life().codes == {0: 86}
        assert job.directories() == before
        job.attempt = 2
        job.run()
        assert finished_weights(job) == reference


@pytest.mark.slow
def test_an_unmounted_checkpoint_volume_ends_with_75_and_judges_nothing(
    forge: Forge, reference: str, tmp_path: Path
) -> None:
    with mini(tmp_path, forge, 1) as job:
        job.one_life({0: "ckpt.after_receipt=kill"})
        away = job.checkpoints.with_name(f"away-{secrets.token_hex(4)}")
        job.checkpoints.rename(away)
        job.checkpoints.mkdir()
        assert job.one_life().codes == {0: 75}
        job.checkpoints.rmdir()
        away.rename(job.checkpoints)
        job.run()
        assert finished_weights(job) == reference


def test_a_service_that_is_away_for_a_while_costs_no_rank(forge: Forge, reference: str, tmp_path: Path) -> None:
    with mini(tmp_path, forge, 2) as job:
        job.start_in_background()
        job.wait_for_step(1)
        job.restart_service()
        job.background_life()
        assert [life.codes for life in job.lives] == [{0: 0, 1: 0}]
        assert finished_weights(job) == reference


@pytest.mark.slow
def test_a_rank_that_stands_still_is_found_and_its_gang_starts_again(
    forge: Forge, reference: str, tmp_path: Path
) -> None:
    # The floor of the hang term is three heartbeats here instead of a minute.
    config = job_config(tmp_path, window_size=WINDOW, every_steps=2, recovery=RecoveryConfig(hang_seconds_min=6.0))
    with MiniJob(tmp_path, forge, world_size=2, prompts=PROMPTS, config=config) as job:
        codes = job.one_life({1: "train.after_backward=stop@2"}).codes
        assert codes == {0: 1, 1: -9}, "rank 0 hears of it although it sits in a collective"
        assert "Hang" in {incident.klass for incident in job.status().incidents}
        job.run()
        assert finished_weights(job) == reference
