"""Which checkpoint is believed at a start: newest with proof and matching digests; refusal is not an I/O error."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from eyas_contract import wire
from eyas_contract.errors import Transient, UserError
from eyas_contract.ids import Incarnation, JobUid
from eyas_runtime import files
from eyas_runtime.checkpoint import verify
from eyas_runtime.checkpoint.manifest import Receipt
from eyas_runtime.checkpoint.names import LAYOUT, MANIFEST, RECEIPT, ROOT_MARKER
from eyas_runtime.checkpoint.store import CheckpointRoot, Strike
from eyas_runtime.checkpoint.verify import Found, find_newest
from support.checkpoints import JOB, lineage, make_root, save_checkpoint
from support.checkpoints import known as known_of

SHARD = "rank-00000-of-00001.safetensors"


def find(root: CheckpointRoot, *known: wire.KnownCheckpoint, not_accepted: frozenset[str] = frozenset()) -> Found:
    return find_newest(root, known, not_accepted=not_accepted, pause=lambda seconds: None)


def believed(found: Found) -> str | None:
    return None if found.checkpoint is None else found.checkpoint.manifest.directory


def test_an_empty_marked_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert find(make_root(tmp_path)) == Found(checkpoint=None, refused=(), listed=())


def test_the_newest_step_with_a_receipt_is_believed(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    requests = [save_checkpoint(root, step) for step in (5, 20, 100)]
    found = find(root)
    assert believed(found) == requests[-1].directory
    assert len(found.listed) == 3


def test_hazard_03_the_store_epoch_counts_before_the_step(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    save_checkpoint(root, 130, of=lineage(incarnation=Incarnation("b1" * 16)))
    newer = save_checkpoint(root, 40, of=lineage(attempt=4, incarnation=Incarnation("c1" * 16), store_epoch=2))
    assert believed(find(root)) == newer.directory


def test_hazard_03_a_directory_without_receipt_and_unknown_to_the_service_is_not_believed(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    good, fresh = save_checkpoint(root, 5), save_checkpoint(root, 9)
    (root.directory(fresh.directory) / RECEIPT).unlink()
    assert believed(find(root, known_of(good))) == good.directory
    assert find(root, known_of(good)).refused == (), "it was never committed, so nothing is refused"


def test_a_lost_receipt_is_made_up_for_by_what_the_service_knows(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    request = save_checkpoint(root, 9)
    (root.directory(request.directory) / RECEIPT).unlink()
    found = find(root, known_of(request))
    assert believed(found) == request.directory
    assert found.checkpoint is not None
    assert found.checkpoint.presented().receipt == ""


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def link_to_itself(path: Path) -> None:
    copy = path.with_suffix(".copy")
    path.rename(copy)
    path.symlink_to(copy)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "first byte": lambda path: flip(path, 0),
    "middle byte": lambda path: flip(path, path.stat().st_size // 2),
    "last byte": lambda path: flip(path, -1),
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "one byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "missing": lambda path: path.unlink(),
    "directory": make_directory,
    "symlink": link_to_itself,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("name", [SHARD, LAYOUT, MANIFEST])
def test_damage_is_refused_with_a_sentence_and_the_older_one_is_believed(
    tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    root = make_root(tmp_path)
    older, newer = save_checkpoint(root, 5), save_checkpoint(root, 9)
    damage(root.directory(newer.directory) / name)
    found = find(root, known_of(newer), known_of(older))
    assert believed(found) == older.directory
    (refusal,) = found.refused
    assert refusal.directory == newer.directory
    assert refusal.sentence
    assert newer.directory in root.listed(), "a refused directory is not deleted by whoever refused it"


def test_a_tampered_manifest_with_its_receipt_is_refused_even_when_the_service_forgot_it(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    older, newer = save_checkpoint(root, 5), save_checkpoint(root, 9)
    flip(root.directory(newer.directory) / MANIFEST, -3)
    assert believed(find(root)) == older.directory


def test_a_checkpoint_copied_under_another_name_is_refused(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    request = save_checkpoint(root, 5)
    shutil.copytree(root.directory(request.directory), root.path / "step-000000009.a1.a1a1a1a1")
    found = find(root)
    assert believed(found) == request.directory
    assert "another directory" in found.refused[0].sentence


def test_a_known_checkpoint_whose_directory_is_gone_is_named(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    older, newer = save_checkpoint(root, 5), save_checkpoint(root, 9)
    shutil.rmtree(root.directory(newer.directory))
    found = find(root, known_of(newer), known_of(older))
    assert believed(found) == older.directory
    assert [refusal.directory for refusal in found.refused] == [newer.directory]
    assert "missing" in found.refused[0].sentence


def test_hazard_40_a_checkpoint_that_failed_once_is_not_believed_when_it_verifies_again(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    older, newer = save_checkpoint(root, 5), save_checkpoint(root, 9)
    root.strike([newer.directory], Strike(incarnation=Incarnation("d1" * 16), went_back_to_step=5))
    assert believed(find(root, known_of(newer), known_of(older))) == older.directory


def test_what_the_service_did_not_accept_is_passed_over(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    older, newer = save_checkpoint(root, 5), save_checkpoint(root, 9)
    found = find(root, not_accepted=frozenset({newer.directory}))
    assert believed(found) == older.directory
    assert [refusal.directory for refusal in found.refused] == [newer.directory]


@pytest.mark.parametrize("what", [RECEIPT, MANIFEST, SHARD])
@pytest.mark.parametrize("name", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT], ids=["EIO", "ESTALE", "ETIMEDOUT"])
def test_hazard_40_an_input_output_error_is_not_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: int, what: str
) -> None:
    root = make_root(tmp_path)
    save_checkpoint(root, 5)
    save_checkpoint(root, 9)
    real = files.read_into

    def read_into(descriptor: int, target: memoryview, of: str) -> None:
        if of == what:
            raise OSError(name, os.strerror(name))
        real(descriptor, target, of)

    monkeypatch.setattr(files, "read_into", read_into)
    with pytest.raises(Transient):
        find(root)


def test_hazard_40_an_error_that_heals_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_root(tmp_path)
    save_checkpoint(root, 5)
    request = save_checkpoint(root, 9)
    pauses: list[float] = []
    real, left = files.read_into, [3]

    def read_into(descriptor: int, target: memoryview, what: str) -> None:
        if what == SHARD and left[0]:
            left[0] -= 1
            raise OSError(errno.ESTALE, "stale file handle")
        real(descriptor, target, what)

    monkeypatch.setattr(files, "read_into", read_into)
    assert believed(find_newest(root, [], pause=pauses.append)) == request.directory
    assert pauses == list(verify.RETRY_SECONDS[:3])


def test_an_empty_mount_is_not_a_folder_without_checkpoints(tmp_path: Path) -> None:
    root = CheckpointRoot(tmp_path, JOB)
    with pytest.raises(Transient, match="marker"):
        find(root)


def test_a_marker_that_vanishes_while_reading_turns_a_refusal_into_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_root(tmp_path)
    request = save_checkpoint(root, 9)
    shard = root.directory(request.directory) / SHARD
    real = verify.check_file

    def unmount(dir_fd: int, name: str, *rest: object) -> None:
        if name == SHARD:
            shard.unlink()
            (root.path / ROOT_MARKER).unlink(missing_ok=True)
        real(dir_fd, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(verify, "check_file", unmount)
    with pytest.raises(Transient, match="marker"):
        find(root)


def test_the_folder_of_another_job_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    make_root(tmp_path)
    with pytest.raises(UserError, match="belongs to job"):
        find(CheckpointRoot(tmp_path / "checkpoints", JobUid("otherjob1")))


def test_a_second_marker_never_replaces_the_first(tmp_path: Path) -> None:
    make_root(tmp_path)
    with pytest.raises(UserError, match="belongs to job"):
        CheckpointRoot(tmp_path / "checkpoints", JobUid("otherjob1")).write_marker()
    assert make_root(tmp_path).has_marker()


def test_verdicts_since_the_parent_are_dead_letters_of_what_is_presented(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    letter = wire.DeadLetter(sequence=3, step=1, reason="empty", source="prepare")
    verdict = wire.Verdict(sequence=17, step=9, reason="its loss is not finite")
    save_checkpoint(root, 9, verdicts=[verdict], letters=[letter])
    found = find(root)
    assert found.checkpoint is not None
    presented = found.checkpoint.presented()
    assert presented.state.dead_letters == (
        letter,
        wire.DeadLetter(sequence=17, step=9, reason="its loss is not finite", source="rank"),
    )


def test_a_forged_receipt_for_another_manifest_is_not_shown_as_proof(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    request = save_checkpoint(root, 9)
    forged = Receipt(receipt="mine", manifest_digest="0" * 64, store_epoch=1, step=9)
    files.publish_bytes(root.directory(request.directory) / RECEIPT, msgspec.json.encode(forged))
    assert believed(find(root)) is None
    found = find(root, known_of(request))
    assert found.checkpoint is not None
    assert found.checkpoint.receipt == ""


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "no room in"), (errno.EDQUOT, "no room in"), (errno.EIO, "the checkpoint folder cannot be read")],
)
def test_a_full_folder_is_not_called_one_that_cannot_be_read(number: int, words: str) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number), "struck.json")

    with pytest.raises(Transient, match=words):
        verify.retrying(fail, pause=lambda seconds: None)


def test_what_lies_under_the_name_of_a_receipt_counts_as_one_though_it_leads_nowhere(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    name = save_checkpoint(root, 9).directory
    assert root.has_receipt(name)
    (root.directory(name) / RECEIPT).unlink()
    assert not root.has_receipt(name)
    (root.directory(name) / RECEIPT).symlink_to(tmp_path / "nowhere")
    assert root.has_receipt(name)
