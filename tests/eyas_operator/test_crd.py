"""The generated CustomResourceDefinition is structural, bounded, and says the same as the types."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eyas_operator.api.crd import crd
from eyas_operator.api.crd_file import crd_yaml
from eyas_operator.api.load import load_yaml
from eyas_operator.api.parse import parse
from eyas_operator.api.rules import IMMUTABLE, OPTIONAL, RULES, immutable_digest
from support.operator_world import a_body

ALLOWED = {
    "type", "description", "properties", "required", "items", "enum", "default", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "anyOf",
    "additionalProperties", "maxProperties", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
}  # fmt: skip


def openapi() -> dict[str, Any]:
    schema: dict[str, Any] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def places(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from places(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from places(schema[key], f"{path}[{key}]")


def test_schema_is_structural() -> None:
    for path, place in places(openapi()):
        assert set(place) <= ALLOWED, path
        if place.get("x-kubernetes-int-or-string"):
            assert "type" not in place, path
            assert place["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
        else:
            assert place.get("type") in ("object", "array", "string", "integer", "number", "boolean"), path
            assert "anyOf" not in place, path
        assert not ("properties" in place and "additionalProperties" in place), path
        assert ("items" in place) == (place.get("type") == "array"), path


def test_every_list_string_and_map_of_the_spec_is_bounded() -> None:
    for path, place in places(openapi()["properties"]["spec"]):
        if place.get("x-kubernetes-preserve-unknown-fields") or place.get("x-kubernetes-int-or-string"):
            continue
        kind = place.get("type")
        if kind == "array":
            assert "maxItems" in place, path
        if kind == "string":
            assert "maxLength" in place or "enum" in place, path
        if kind == "object" and "additionalProperties" in place:
            assert "maxProperties" in place, path
        if kind in ("integer", "number"):
            assert "minimum" in place, path
            assert "maximum" in place, path


def test_rules_and_immutable_parts_are_in_the_schema() -> None:
    spec = openapi()["properties"]["spec"]
    rules = [entry["rule"] for entry in spec["x-kubernetes-validations"]]
    given = [f"has(self.{part}) == has(oldSelf.{part})" for part in OPTIONAL]
    assert rules == [*(rule.cel for rule in RULES), *given]
    for part in (*IMMUTABLE, *OPTIONAL):
        assert spec["properties"][part]["x-kubernetes-validations"][0]["rule"] == "self == oldSelf"


def test_scale_and_status_subresources() -> None:
    version = crd()["spec"]["versions"][0]
    assert version["subresources"]["scale"]["specReplicasPath"] == ".spec.producers.replicas"
    columns = [column["name"] for column in version["additionalPrinterColumns"]]
    assert {"State", "Attempt", "Restarts", "Step", "Acked", "Lag", "Age"} <= set(columns)
    properties = openapi()["properties"]
    for path in (".status.producerReplicas", ".status.producerSelector", ".status.progress.step", ".status.storeEpoch"):
        place = properties
        for part in path.strip(".").split("."):
            place = place[part].get("properties", place[part])
    conditions = openapi()["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def defaulted(schema: dict[str, Any], value: Any) -> Any:  # noqa: ANN401 - any JSON
    """`value` with the schema's defaults, as the API server applies them: from outside to inside."""
    if isinstance(value, dict) and "properties" in schema:
        filled = dict(value)
        for name, child in schema["properties"].items():
            if name not in filled and "default" in child:
                filled[name] = child["default"]
            if name in filled:
                filled[name] = defaulted(child, filled[name])
        return filled
    if isinstance(value, list):
        return [defaulted(schema["items"], entry) for entry in value]
    return value


def test_defaults_of_the_api_server_change_nothing() -> None:
    body = a_body()
    spec = defaulted(openapi()["properties"]["spec"], body["spec"])
    assert spec["draft"]["steps"] == 7
    assert spec["recovery"]["backoff"]["maxSeconds"] == 60
    assert parse(body | {"spec": spec}).spec == parse(body).spec
    assert immutable_digest(parse(body | {"spec": spec}).spec) == immutable_digest(parse(body).spec)


def test_minimal_job_is_complete_after_defaulting() -> None:
    text = "{target: {model: /models/m}, data: {prompts: [/data/p]}}"
    spec = defaulted(openapi()["properties"]["spec"], load_yaml(text))
    assert spec["volumes"]["checkpoints"]["size"] == "100Gi"
    parse(a_body() | {"spec": spec})


def test_two_calls_share_nothing() -> None:
    first, second = crd(), crd()
    assert first == second
    first["spec"]["group"] = "changed"
    assert second["spec"]["group"] == "eyas.dev"


def test_every_field_says_what_it_is() -> None:
    for part in ("spec", "status"):
        for path, place in places(openapi()["properties"][part], part):
            if "[" in path.rpartition(".")[2]:
                continue
            assert place.get("description"), path


def test_file_in_the_chart_is_what_the_types_generate() -> None:
    file = Path(__file__).parents[2] / "charts" / "eyas" / "files" / "crd.yaml"
    assert file.read_text() == crd_yaml(), "run `make crd`"
