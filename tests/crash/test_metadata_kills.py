"""SIGKILL at every transaction of the metadata store, before and after its commit: no promise is broken, the job ends.

The script dies at hit k of all failpoints, for every k; the file is reopened and judged; the next life goes on to the
end, which must be the end of the run that nobody touched. Then the same for pairs: death again during the recovery.
"""

import signal
from pathlib import Path

import pytest

from eyas_runtime import failpoints
from eyas_runtime.metadata.sqlite.database import Database, Value
from support.metadata_machine import scratch_folder
from support.metadata_script import assert_finished, assert_promises_kept, in_child, run_script


def _life(folder: Path, life: int, kill_at: int = 0, log: str | None = None) -> None:
    failpoints.arm(f"*=kill@{kill_at}" if kill_at else "", log_path=log)
    run_script(folder, life)


def _folder(name: str, root: str) -> Path:
    folder = Path(root) / name
    folder.mkdir()
    return folder


def _hits(root: str) -> list[str]:
    folder, log = _folder("clean", root), str(Path(root) / "hits")
    assert in_child(_life, folder, 1, 0, log) == 0
    assert_finished(folder)
    return Path(log).read_text().splitlines()


def test_kill_at_every_transaction_breaks_no_promise_and_the_job_ends() -> None:
    with scratch_folder() as root:
        hits = _hits(root)
        assert set(hits) == {"metadata.before_commit", "metadata.after_commit"}
        assert len(hits) >= 50, "the script must pass through enough transactions to be worth killing"
        for kill_at in range(1, len(hits) + 1):
            folder = _folder(f"k{kill_at}", root)
            assert in_child(_life, folder, 1, kill_at) == -signal.SIGKILL
            assert in_child(assert_promises_kept, folder) == 0, f"after a kill at hit {kill_at} ({hits[kill_at - 1]})"
            assert in_child(_life, folder, 2) == 0, f"the life after a kill at hit {kill_at} did not end"
            assert in_child(assert_finished, folder) == 0, f"another end after a kill at hit {kill_at}"


@pytest.mark.slow
def test_kill_again_during_the_recovery_breaks_no_promise() -> None:
    with scratch_folder() as root:
        count = len(_hits(root))
        for first in range(1, count + 1, 3):
            for second in range(1, count + 1, 7):
                folder = _folder(f"k{first}-{second}", root)
                assert in_child(_life, folder, 1, first) == -signal.SIGKILL
                # The second life may be over before its hit: what is left to do may be little.
                assert in_child(_life, folder, 2, second) in (-signal.SIGKILL, 0)
                assert in_child(assert_promises_kept, folder) == 0, (first, second)
                assert in_child(_life, folder, 3) == 0, (first, second)
                assert in_child(assert_finished, folder) == 0, (first, second)


def _life_in_two_halves(folder: Path, kill_at: int) -> None:
    """A broken store: a transaction that moves the durable step is committed in the middle."""
    whole = Database.run

    def halved(self: Database, name: str, **values: Value) -> int:
        changed = whole(self, name, **values)
        if name == "set_durable_step":
            self._guarded("COMMIT")
            failpoints.hit("metadata.after_commit")
            self._guarded("BEGIN IMMEDIATE")
        return changed

    Database.run = halved  # type: ignore[method-assign]
    _life(folder, 1, kill_at)


@pytest.mark.slow
def test_store_whose_commit_is_not_one_transaction_is_caught() -> None:
    with scratch_folder() as root:
        caught = set()
        for kill_at in range(1, len(_hits(root)) + 1):
            folder = _folder(f"k{kill_at}", root)
            if in_child(_life_in_two_halves, folder, kill_at) == -signal.SIGKILL:
                try:
                    assert_promises_kept(folder)
                except AssertionError as broken:
                    caught.add(str(broken).partition("\n")[0])
        assert any("promise 3" in each for each in caught), caught
