"""Writes what an image is made of, as a CycloneDX document: its Debian packages, its locked Python packages, our code.

Both lists are labels of the image, which images/build.sh takes from the package manager and from the lock. The same
image gives the same bytes: the serial number comes from its id, and the time is that of the files in it.

    docker image inspect eyas-runtime:0.1.0 | sbom.py eyas-runtime > eyas-runtime.cdx.json
"""

import json
import sys
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

_DISTRIBUTION = "debian-12"


def _part(kind: str, name: str, version: str, *, namespace: str = "", **qualifiers: str) -> Component:
    place = PackageURL(type=kind, namespace=namespace or None, name=name, version=version, qualifiers=qualifiers)
    return Component(type=ComponentType.LIBRARY, name=name, version=version, purl=place, bom_ref=place.to_string())


def _listed(text: str, between: str) -> Iterator[tuple[str, str]]:
    """Name and version of every entry of a label."""
    for entry in filter(None, text.split(",")):
        name, found, version = entry.partition(between)
        if not (name and found and version):
            raise ValueError(f"no name and version: {entry!r}")
        yield name, version


def document(name: str, image: dict[str, Any]) -> str:
    """The document of an image as docker describes it."""
    labels = image["Config"]["Labels"]
    version = labels["org.opencontainers.image.version"]
    algorithm, _, digest = image["Id"].partition(":")
    if algorithm != "sha256":
        raise ValueError(f"an image's id is sha256:..., not {image['Id']!r}")
    whole = Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=version,
        bom_ref=f"{name}:{version}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
    code = Component(
        type=ComponentType.APPLICATION,
        name="eyas",
        version=version,
        bom_ref=f"eyas@{version}",
        licenses=[DisjunctiveLicense(id=labels["org.opencontainers.image.licenses"])],
    )
    debian = [
        _part("deb", *entry, namespace="debian", distro=_DISTRIBUTION)
        for entry in _listed(labels["dev.eyas.debian"], "=")
    ]
    python = [_part("pypi", *entry) for entry in _listed(labels["dev.eyas.python"], "==")]
    bom = Bom(components=[code, *debian, *python], serial_number=uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {image['Id']}"))
    bom.metadata.component = whole
    bom.metadata.timestamp = datetime.fromisoformat(image["Created"])
    bom.register_dependency(whole, bom.components)
    text: str = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    return f"{text}\n"


def main() -> None:
    """Read docker's description of one image, write its document."""
    (image,) = json.load(sys.stdin)
    print(document(sys.argv[1], image), end="")


if __name__ == "__main__":
    main()
