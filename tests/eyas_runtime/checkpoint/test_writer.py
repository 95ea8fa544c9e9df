"""The order of a save, its garbage, and what two incarnations may not do to each other."""

from pathlib import Path

import pytest

from eyas_contract.errors import Closed, Transient, UserError
from eyas_contract.ids import Incarnation
from eyas_runtime import failpoints
from eyas_runtime.checkpoint.names import MANIFEST, RECEIPT
from eyas_runtime.checkpoint.saver import AsyncSaver
from eyas_runtime.checkpoint.writer import CheckpointWriter, Save
from support.checkpoints import RecordingCommitter, lineage, make_root, save_checkpoint


def test_the_service_is_asked_only_when_the_manifest_is_there_and_the_receipt_comes_after(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    seen: list[tuple[bool, bool]] = []

    def look() -> None:
        (name,) = root.listed()
        path = root.directory(name)
        seen.append(((path / MANIFEST).exists(), (path / RECEIPT).exists()))

    request = save_checkpoint(root, 3, world_size=2, committer=RecordingCommitter(before=look))
    assert seen == [(True, False)]
    receipt = root.receipt(request.directory)
    assert receipt is not None
    assert (receipt.receipt, receipt.manifest_digest) == ("receipt-3", request.manifest_digest)


def test_everything_is_synced_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    root = make_root(tmp_path)
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    at_commit: list[str] = []
    save_checkpoint(root, 3, committer=RecordingCommitter(before=lambda: at_commit.extend(synced)))
    directory = str(root.path / "step-000000003.a1.a1a1a1a1")
    inside = [path for path in at_commit if path.startswith(directory + "/")]
    assert len(inside) == 3, "shard, layout and manifest, under their temporary names"
    last_file = max(i for i, path in enumerate(at_commit) if path.startswith(directory + "/"))
    assert directory in at_commit[last_file:], "the directory after its last file"
    assert str(root.path) in at_commit[last_file:], "and the root after that"


def test_a_commit_that_is_refused_leaves_no_receipt_and_deletes_nothing(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    old = save_checkpoint(root, 1)

    def refuse() -> None:
        raise Closed("the incarnation is over")

    with pytest.raises(Closed):
        save_checkpoint(root, 2, committer=RecordingCommitter(garbage=[old.directory], before=refuse))
    assert root.receipt("step-000000002.a1.a1a1a1a1") is None
    assert old.directory in root.listed()


def test_garbage_is_deleted_on_the_services_word_and_nothing_else(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    first, second = save_checkpoint(root, 1), save_checkpoint(root, 2)
    third = save_checkpoint(root, 3, world_size=2, committer=RecordingCommitter(garbage=[first.directory]))
    assert root.listed() == (second.directory, third.directory)


def test_garbage_outside_the_folder_or_of_another_shape_is_refused(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    (tmp_path / "precious").mkdir()
    with pytest.raises(UserError):
        save_checkpoint(root, 3, committer=RecordingCommitter(garbage=["../precious"]))
    assert (tmp_path / "precious").is_dir()


def test_the_checkpoint_just_committed_is_never_its_own_garbage(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    name = "step-000000003.a1.a1a1a1a1"
    save_checkpoint(root, 3, committer=RecordingCommitter(garbage=[name]))
    assert root.listed() == (name,)


def test_hazard_08_two_incarnations_never_write_the_same_directory(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    one = save_checkpoint(root, 5, of=lineage(incarnation=Incarnation("b1" * 16)))
    two = save_checkpoint(root, 5, of=lineage(incarnation=Incarnation("c1" * 16)))
    assert one.directory != two.directory
    assert len(root.listed()) == 2


def test_an_incarnation_cannot_write_over_its_own_finished_directory(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    first = save_checkpoint(root, 5)
    with pytest.raises(FileExistsError):
        save_checkpoint(root, 5, seed=2)
    assert root.manifest_bytes(first.directory) is not None


def test_a_failed_background_save_is_raised_where_the_loop_next_looks(tmp_path: Path) -> None:
    from support.checkpoints import example_pieces, state_at, thread_groups

    root = make_root(tmp_path)
    failpoints.arm("ckpt.after_data=error:EIO")
    try:
        saver = AsyncSaver(CheckpointWriter(root, lineage(), thread_groups(1)[0], RecordingCommitter()))
        saver.start(Save(step=1, pieces=example_pieces(0, 1), state=state_at(1), verdicts=()))
        with pytest.raises(OSError, match="after_data"):
            saver.wait()
        with pytest.raises(OSError, match="after_data"):
            saver.check()
    finally:
        failpoints.disarm()
    assert saver.committed_step == 0
    saver.close()


@pytest.mark.parametrize(
    ("where", "left"), [("ckpt.after_data", 0), ("ckpt.after_manifest", 1), ("ckpt.after_commit", 1)]
)
def test_a_save_without_room_takes_its_shard_back_unless_a_manifest_names_it(
    tmp_path: Path, where: str, left: int
) -> None:
    root = make_root(tmp_path)
    failpoints.arm(f"{where}=error:ENOSPC")
    try:
        with pytest.raises(Transient, match="no room for a checkpoint"):
            save_checkpoint(root, 3)
    finally:
        failpoints.disarm()
    (name,) = root.listed()
    assert len(list(root.directory(name).glob("rank-*"))) == left


def test_another_error_of_the_disk_is_raised_as_it_comes(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    failpoints.arm("ckpt.after_data=error:EIO")
    try:
        with pytest.raises(OSError, match="after_data"):
            save_checkpoint(root, 3)
    finally:
        failpoints.disarm()


def test_the_saver_knows_its_newest_commit(tmp_path: Path) -> None:
    from support.checkpoints import example_pieces, state_at, thread_groups

    saver = AsyncSaver(CheckpointWriter(make_root(tmp_path), lineage(), thread_groups(1)[0], RecordingCommitter()))
    for step in (1, 4):
        saver.start(Save(step=step, pieces=example_pieces(0, 1), state=state_at(step), verdicts=()))
    saver.wait()
    assert (saver.committed_step, saver.busy) == (4, False)
    saver.close()
