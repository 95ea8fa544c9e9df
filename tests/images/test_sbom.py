"""What each image is made of is told in a document that passes CycloneDX's schema and leaves nothing out."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from images.test_start import IMAGES, TAG, python, start

ROOT: Final = Path(__file__).parents[2]
LOCKED: Final = re.compile(r"^([a-z0-9.-]+==[^ ]+)", re.MULTILINE)
VALIDATOR: Final = JsonStrictValidator(SchemaVersion.V1_6)


def described(debian: str, lock: str, **changed: object) -> dict[str, Any]:
    """An image of these packages as docker describes it."""
    labels = {
        "org.opencontainers.image.version": "0.1.0",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "dev.eyas.debian": debian,
        "dev.eyas.python": ",".join(LOCKED.findall(lock)),
    }
    return {"Id": f"sha256:{'7' * 64}", "Created": "2026-01-01T00:00:00Z", "Config": {"Labels": labels}} | changed


def written(image: dict[str, Any]) -> str:
    command = [sys.executable, str(ROOT / "images" / "sbom.py"), "eyas-operator"]
    done = subprocess.run(command, input=json.dumps([image]), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def locks() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "images").rglob("*.lock"))


@pytest.mark.parametrize("lock", locks())
def test_every_package_is_named_and_the_schema_holds(lock: str) -> None:
    text = (ROOT / lock).read_text()
    told = written(described("libc6=2.36-9+deb12u13,python3.11=3.11.2-6+deb12u6,util-linux=1:2.38~1,", text))
    assert VALIDATOR.validate_str(told) is None
    document = json.loads(told)
    places = {part["purl"] for part in document["components"] if "purl" in part}
    debian = {f"pkg:deb/debian/{it}?distro=debian-12" for it in (
        "libc6@2.36-9%2Bdeb12u13", "python3.11@3.11.2-6%2Bdeb12u6", "util-linux@1:2.38~1",
    )}  # fmt: skip
    python = {f"pkg:pypi/{it.replace('==', '@').replace('+', '%2B')}" for it in LOCKED.findall(text)}
    assert python
    assert places == debian | python
    (whole,) = [it for it in document["dependencies"] if it["ref"] == "eyas-operator:0.1.0"]
    assert set(whole["dependsOn"]) == {part["bom-ref"] for part in document["components"]}


def test_the_schema_is_asked() -> None:
    document = json.loads(written(described("a=1", "b==2 \\")))
    del document["components"][0]["name"]
    assert VALIDATOR.validate_str(json.dumps(document)) is not None


def test_same_image_same_bytes_and_another_image_another_serial_number() -> None:
    image = described("a=1,b=2", "c==3 \\")
    assert written(image) == written(image)
    other = written(described("a=1,b=2", "c==3 \\", Id=f"sha256:{'8' * 64}"))
    assert json.loads(other)["serialNumber"] != json.loads(written(image))["serialNumber"]
    assert json.loads(other)["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": "8" * 64}]


@pytest.mark.images
@pytest.mark.parametrize("image", IMAGES)
def test_the_document_of_an_image_names_what_is_in_it(image: str) -> None:
    parts = json.loads((ROOT / "build" / "sbom" / f"eyas-{image}-{TAG}.cdx.json").read_text())["components"]
    told = {(part["purl"].split("/")[0], part["name"], part["version"]) for part in parts if "purl" in part}
    listed = start(image, "dpkg-query", "-W", "-f", "${Package} ${Version}\n").stdout
    debian = {("pkg:deb", *line.split(" ")) for line in listed.splitlines()}
    code = (
        "from importlib.metadata import distributions as d; print(*(f'{x.name} {x.version}' for x in d()), sep='\\n')"
    )
    python_ = {tuple(line.split(" ")) for line in python(image, code).splitlines()} - {("eyas", TAG)}
    assert {entry for entry in told if entry[0] == "pkg:deb"} == debian
    canonical = {("pkg:pypi", re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in python_}
    assert {entry for entry in told if entry[0] == "pkg:pypi"} == canonical
