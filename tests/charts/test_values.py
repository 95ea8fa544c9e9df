"""The values: each explained, each in the schema, and a wrong one refused by its name."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from support.helm import CHART, refusal

VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
FREE = {"affinity", "podSecurityContext", "securityContext", "resources", "labels", "requests", "limits"}
"""Values that Kubernetes defines: what is inside is explained there."""


def paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict) and key not in FREE:
            yield from paths(value, f"{prefix}{key}.")


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for key, child in schema.get("properties", {}).items():
        yield from schemas(child, f"{path}.{key}".lstrip("."))


def test_every_value_is_explained_in_a_comment_above_it() -> None:
    lines = VALUES.splitlines()
    free = 0
    for number, line in enumerate(lines):
        found = re.match(r"( *)([a-zA-Z]+):", line)
        if not found:
            continue
        indent, key = len(found[1]), found[2]
        if free and indent >= free:
            continue
        free = indent + 2 if key in FREE else 0
        above = number - 1
        while lines[above].strip().startswith("#") and not lines[above].strip().startswith("# --"):
            above -= 1
        assert lines[above].strip().startswith("# -- "), f"{key} in line {number + 1}"


def test_every_value_is_in_the_schema_and_the_schema_has_no_other() -> None:
    described = {path for path, _ in schemas(SCHEMA) if path}
    given = set(paths(yaml.safe_load(VALUES)))
    assert given <= described
    assert {path for path in described - given if path.split(".")[-1] not in {"claims", *FREE}} == {"global"}


def test_a_value_that_nobody_reads_is_refused_at_every_depth() -> None:
    for path, schema in schemas(SCHEMA):
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path or "the top"


def test_every_value_is_read_by_a_template() -> None:
    templates = "\n".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    for path in paths(yaml.safe_load(VALUES)):
        leaf = path.split(".")[-1]
        if not path.startswith("settings."):
            assert re.search(rf"\.{leaf}\b", templates), path


@pytest.mark.chart
@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicaCount": 0}, "/replicaCount"),
        ({"replicas": 3}, "'replicas'"),
        ({"image": {"digest": "abc"}}, "/image/digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"runtimeImage": {"repository": "a b"}}, "/runtimeImage/repository"),
        ({"watchNamespaces": ["Upper"]}, "/watchNamespaces/0"),
        ({"watchNamespaces": "team-a"}, "/watchNamespaces"),
        ({"watchNamespaces": ["a", "*"]}, "watchNamespaces"),
        ({"settings": {"resyncSeconds": 0}}, "/settings/resyncSeconds"),
        ({"settings": {"resync": 1}}, "'resync'"),
        ({"logLevel": "loud"}, "/logLevel"),
        ({"extraEnv": [{"name": "A", "valueFrom": {}}]}, "/extraEnv/0"),
        ({"metrics": {"port": 70000}}, "/metrics/port"),
        ({"metrics": {"enabled": False, "serviceMonitor": {"enabled": True}}}, "metrics.enabled"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
        ({"mooncakePool": {"protocol": "UDP"}}, "/mooncakePool/protocol"),
        ({"mooncakePool": {"nodes": {"segmentGiB": "4Gi"}}}, "/mooncakePool/nodes/segmentGiB"),
        ({"nameOverride": "x" * 46}, "/nameOverride"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_refused_with_its_name(values: dict[str, Any], named: str) -> None:
    assert named in refusal(values)
