"""Processes in waiting: a restart takes one over, nothing else notices them."""

import sys
from pathlib import Path

import pytest

from eyas_contract import env
from eyas_runtime.supervisor.child_stderr import ChildStderr
from eyas_runtime.supervisor.log_writer import LogWriter
from eyas_runtime.supervisor.settings import read_settings
from eyas_runtime.supervisor.spares import FAILPOINTS, Spares
from support.supervised import Supervised, supervised
from support.waiting import alive, kill, wait_dead, wait_until

PYTHON = """#!/bin/sh
# The entry point is a script; a process in waiting runs the product's own `spare`, told to import that script.
PYTHONPATH={folder} exec {python} {folder}/front.py "$@"
"""
FRONT = """
import runpy, sys
from eyas_runtime.supervisor import spare
arguments = sys.argv[1:]
if arguments[1] == "eyas_runtime.supervisor.spare":
    spare.HEAVY = {"entry": ("heavy",)}
    sys.argv = ["spare", "entry"]
    spare.run_role(spare.main)
else:
    import entry
    from eyas_runtime.process import run_role
    run_role(entry.main)
"""
ENTRY = """
import os, pathlib, signal
from eyas_runtime.process import die_with_parent, mark_ready
folder = pathlib.Path(os.environ["TEST_FOLDER"])
def main():
    (folder / ("started." + os.environ["EYAS_PROCESS"])).touch()
    os.write(2, f"process {os.getpid()} is an entry point\\n".encode())
    mark_ready()
    while True:
        signal.pause()
"""
HEAVY = "import os, pathlib\npathlib.Path(os.environ['TEST_FOLDER'], f'imported.{os.getpid()}').touch()\n"
COMMAND = ["-m", "eyas_runtime.train.consume"]


@pytest.fixture
def python(tmp_path: Path) -> str:
    for name, text in (("front.py", FRONT), ("entry.py", ENTRY), ("heavy.py", HEAVY)):
        (tmp_path / name).write_text(text)
    path = tmp_path / "python"
    path.write_text(PYTHON.format(folder=tmp_path, python=sys.executable))
    path.chmod(0o755)
    return str(path)


def spare_of(pod: Supervised) -> int:
    """The spare of a pod of one, once it has done its imports."""

    def found() -> int:
        listed = [int(str(child["pid"])) for child in pod.children() if child["role"] == "producer-spare"]
        return listed[0] if listed and (pod.folder / f"imported.{listed[0]}").exists() else 0

    return wait_until(found, lambda: f"a spare; {pod.children()} {pod.log()}")


def children(pod: Supervised) -> list[int]:
    return [int(str(child["pid"])) for child in pod.children() if child["role"] == "producer"]


def test_a_restart_takes_the_spare_over_and_another_one_follows(tmp_path: Path, python: str) -> None:
    with supervised(tmp_path, "", command=[python, *COMMAND]) as pod:
        first = spare_of(pod)
        kill(children(pod)[0])
        wait_until(lambda: children(pod) == [first], "the spare to become the child")
        [entry] = [child for child in pod.children() if child["pid"] == first]
        assert entry["restart"] == 1
        wait_until((tmp_path / f"started.{entry['process']}").exists, "the entry point to run")
        wait_until(lambda: f"process {first} is an entry point" in pod.log(), "its stderr in the log")
        assert spare_of(pod) != first


def test_the_death_of_a_spare_costs_nothing(tmp_path: Path, python: str) -> None:
    with supervised(tmp_path, "", command=[python, *COMMAND]) as pod:
        spare, before = spare_of(pod), children(pod)
        kill(spare)
        wait_until(lambda: spare_of(pod) != spare, "another spare")
        assert children(pod) == before
        assert (pod.pod / "restarts").read_text() == "0"


def test_spares_die_with_a_killed_supervisor(tmp_path: Path, python: str) -> None:
    with supervised(tmp_path, "", command=[python, *COMMAND]) as pod:
        spare = spare_of(pod)
        kill(pod.process.pid)
        wait_dead(spare)


def test_spares_end_with_the_pod(tmp_path: Path, python: str) -> None:
    with supervised(tmp_path, "", command=[python, *COMMAND]) as pod:
        spare = spare_of(pod)
        pod.process.terminate()
        assert pod.end() == 143
        wait_dead(spare)


@pytest.mark.parametrize(
    ("module", "variables", "wanted"),
    [
        pytest.param("eyas_runtime.train.consume", {}, True, id="trainer"),
        pytest.param("eyas_runtime.capture.produce", {}, True, id="producer"),
        pytest.param("eyas_runtime.metadata.service", {}, False, id="starts fast anyway"),
        pytest.param("eyas_runtime.train.consume", {FAILPOINTS: "train.after_step=kill"}, False, id="failpoints"),
        pytest.param("eyas_runtime.train.consume", {env.TRAINER: "fake"}, False, id="fake trainer"),
    ],
)
def test_only_slow_entry_points_that_carry_no_arming_have_spares(
    tmp_path: Path, module: str, variables: dict[str, str], wanted: bool
) -> None:
    settings = read_settings(
        ["--role", "producer", "--", "python", "-m", module], {env.POD_DIRECTORY: str(tmp_path)} | variables
    )
    assert Spares(settings, variables, ChildStderr(LogWriter())).missing is wanted


def test_a_spare_runs_no_entry_point_before_it_is_told(tmp_path: Path, python: str) -> None:
    with supervised(tmp_path, "", command=[python, *COMMAND]) as pod:
        spare = spare_of(pod)
        assert len(list(tmp_path.glob("started.*"))) == 1
        assert alive(spare)
        assert b"EYAS_PROCESS=" not in Path(f"/proc/{spare}/environ").read_bytes()
