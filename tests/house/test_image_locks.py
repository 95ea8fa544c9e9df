"""The images' locks say what pyproject.toml asks for: nothing is missing, out of range, or without a hash."""

import re
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
EXTRAS = {
    "operator": ("operator",),
    "runtime": ("runtime", "mooncake", "fake"),
    "train": ("runtime", "mooncake", "train", "capture"),
}
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==([^ \\]+)(.*?)(?=^[A-Za-z0-9]|\Z)", re.MULTILINE | re.DOTALL)
FORBIDDEN = {"operator": {"torch", "transformers", "numpy"}, "runtime": {"torch", "transformers", "safetensors"}}


@cache
def lock(image: str) -> dict[str, tuple[Version, str]]:
    """Name to version and the rest of the entry."""
    text = (ROOT / "images" / image / "requirements.lock").read_text()
    return {canonicalize_name(name): (Version(version), rest) for name, version, rest in ENTRY.findall(text)}


def wanted(image: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in EXTRAS[image]:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("image", EXTRAS)
def test_every_requirement_of_the_project_is_locked_within_its_range(image: str) -> None:
    for requirement in wanted(image):
        name = canonicalize_name(requirement.name)
        assert name in lock(image), f"{name} is not locked: make lock"
        assert requirement.specifier.contains(lock(image)[name][0]), f"{name}: make lock"


@pytest.mark.parametrize("image", EXTRAS)
def test_every_locked_package_has_hashes_and_the_version_that_is_tested(image: str) -> None:
    pins = dict(
        line.split("==", 1) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line[:80]
    )
    for name, (version, rest) in lock(image).items():
        assert "--hash=sha256:" in rest, name
        assert Version(pins.get(name, str(version))) == version, f"{name} is not what constraints.txt says: make lock"


@pytest.mark.parametrize("image", EXTRAS)
def test_every_dependency_of_a_locked_package_is_locked(image: str) -> None:
    for name in lock(image):
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # CUDA packages of PyPI's torch, which this environment need not have
        for requirement in map(Requirement, needed):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in lock(image), f"{name} needs {requirement}: make lock"


@pytest.mark.parametrize("image", FORBIDDEN)
def test_images_of_the_control_plane_lock_no_torch(image: str) -> None:
    assert not FORBIDDEN[image] & lock(image).keys()


def test_the_cpu_build_of_torch_is_the_locked_version() -> None:
    line = (ROOT / "images" / "train" / "torch-cpu.lock").read_text()
    found = re.fullmatch(r"torch==([0-9.]+)\+cpu --hash=sha256:[0-9a-f]{64}\n", line)
    assert found is not None
    assert Version(found[1]) == lock("train")["torch"][0]
