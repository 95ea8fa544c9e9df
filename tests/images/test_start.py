"""Every image starts as restricted as a pod is: no root, no capability, nothing to write to but mounted folders."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.images

ROOT = Path(__file__).parents[2]
TAG = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
RESTRICTED = (
    "docker", "run", "--rm", "--network", "none", "--read-only", "--user", "65532", "--cap-drop", "ALL",
    "--security-opt", "no-new-privileges", "--tmpfs", "/tmp", "--tmpfs", "/run/eyas:uid=65532,mode=0700",
)  # fmt: skip
TORCH_FREE = ("operator", "runtime")
IMAGES = (*TORCH_FREE, "train")


def start(image: str, *command: str) -> subprocess.CompletedProcess[str]:
    whole = [*RESTRICTED, f"eyas-{image}:{TAG}", *command]
    return subprocess.run(whole, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ))


def python(image: str, code: str) -> str:
    done = start(image, "python", "-c", code)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.parametrize("image", IMAGES)
def test_it_runs_as_nobody_and_cannot_change_itself(image: str) -> None:
    done = start(image, "sh", "-c", "id -u; touch /usr/local/x")
    assert done.stdout.strip() == "65532"
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("image", IMAGES)
def test_it_has_no_compiler_and_nothing_that_installs_more(image: str) -> None:
    names = ["cc", "gcc", "g++", "make", "pip", "pip3", "apt", "apt-get", "curl", "wget"]
    assert python(image, f"import shutil; print([n for n in {names} if shutil.which(n)])") == "[]"
    assert (
        python(image, "import importlib.util as u; print(u.find_spec('pip'), u.find_spec('ensurepip'))") == "None None"
    )


@pytest.mark.parametrize("image", TORCH_FREE)
def test_the_control_plane_has_no_torch(image: str) -> None:
    assert "No module named 'torch'" in start(image, "python", "-c", "import torch").stderr


def test_the_operator_starts_and_says_what_it_misses() -> None:
    done = start("operator", "python", "-m", "eyas_operator")
    assert done.returncode != 0
    assert done.stderr.startswith("eyas-operator: "), done.stderr[-2000:]
    assert "Traceback" not in done.stderr


def test_the_operator_image_has_no_runtime() -> None:
    assert python("operator", "import importlib.util as u; print(u.find_spec('eyas_runtime'))") == "None"


def test_the_supervisor_runs_a_child() -> None:
    command = ("python", "-m", "eyas_runtime.supervisor", "--role", "metadata", "--", "true")
    done = start("runtime", *command)
    assert "Traceback" not in done.stderr, done.stderr[-2000:]


@pytest.mark.parametrize(
    "module", ["eyas_runtime.metadata.service", "eyas_runtime.train.fake_engine", "mooncake.store"]
)
def test_what_torch_free_pods_run_can_be_imported(module: str) -> None:
    assert python("runtime", f"import {module}; print('yes')") == "yes"


def test_mooncakes_master_starts() -> None:
    code = (
        "import mooncake, pathlib, subprocess, sys;"
        "program = pathlib.Path(mooncake.__path__[0]) / 'mooncake_master';"
        "done = subprocess.run([str(program), '--version'], capture_output=True, timeout=60);"
        "print('error while loading' in done.stderr.decode())"
    )
    assert python("runtime", code) == "False"


@pytest.mark.parametrize(
    "module", ["eyas_runtime.train.draft_engine", "eyas_runtime.capture.produce", "mooncake.store"]
)
def test_producers_and_consumers_can_be_imported(module: str) -> None:
    assert python("train", f"import {module}; print('yes')") == "yes"
