"""Temporary files go when their writer is provably dead, and stay while it may be alive."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from eyas_runtime import files, temporary
from eyas_runtime.temporary import WriterIdentity

ME = WriterIdentity(host="a" * 16, boot="b" * 16, namespace=1, pid=10, start_ticks=100)
ALIVE = {10: 100, 11: 110}


@pytest.mark.parametrize(
    ("writer", "age", "abandoned"),
    [
        (ME, 1e9, False),
        (replace(ME, pid=11, start_ticks=110), 1e9, False),
        (replace(ME, pid=12), 0.0, True),
        (replace(ME, pid=11, start_ticks=109), 0.0, True),
        (replace(ME, boot="c" * 16), 0.0, True),
        (replace(ME, namespace=2, pid=12), 59.0, False),
        (replace(ME, namespace=2, pid=12), 61.0, True),
        (replace(ME, host="d" * 16, pid=12), 59.0, False),
        (replace(ME, host="d" * 16, pid=12), 61.0, True),
        (replace(ME, host="d" * 16, boot="c" * 16), 59.0, False),
    ],
    ids=["self", "living neighbour", "dead", "reused pid", "before reboot", "young in another container",
         "old in another container", "young on another host", "old on another host", "another host's boot"],
)  # fmt: skip
def test_who_is_taken_for_dead(writer: WriterIdentity, age: float, abandoned: bool) -> None:
    found = temporary.is_abandoned(writer, ME, age_seconds=age, foreign_after_seconds=60.0, start_of=ALIVE.get)
    assert found is abandoned


def test_a_name_says_who_wrote_it() -> None:
    me = temporary.own_identity()
    name = temporary.name_for(me)
    assert temporary.writer_of(name) == me
    assert name != temporary.name_for(me)
    assert len(name) <= files.NAME_BYTES_MAX


@pytest.mark.parametrize("name", ["eyas.x", ".eyas-tmp.", ".eyas-tmp.zz.zz.1.2.3.4", "", ".eyas-tmp.../../x"])
def test_a_foreign_name_has_no_writer(name: str) -> None:
    assert temporary.writer_of(name) is None


def test_the_sweep_removes_a_dead_childs_file_and_nothing_else(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        (tmp_path / temporary.name_for(temporary.own_identity())).touch()
        os._exit(0)
    os.waitpid(pid, 0)
    mine = temporary.name_for(temporary.own_identity())
    for name in (mine, ".eyas-tmp.not-ours", "object"):
        (tmp_path / name).touch()
    with files.directory(tmp_path) as dir_fd:
        assert temporary.sweep(dir_fd) == 1
        assert temporary.sweep(dir_fd) == 0
    assert {entry.name for entry in tmp_path.iterdir()} == {mine, ".eyas-tmp.not-ours", "object"}


def test_a_zombie_writes_no_more() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert temporary.start_ticks_of(pid) is None
    os.waitpid(pid, 0)
