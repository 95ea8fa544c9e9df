"""The CustomResourceDefinition, generated from the types: the YAML in the chart is never written by hand.

Kubernetes wants *structural* schemas: no references, no unions with null, no keywords that OpenAPI 3.0 lacks, and
`additionalProperties` only for maps. Rules over several fields and the immutable parts become CEL.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from eyas_operator import names
from eyas_operator.api.base import Model, render_quantity
from eyas_operator.api.checks import VALIDATIONS
from eyas_operator.api.job import JobSpec
from eyas_operator.api.rules import IMMUTABLE, OPTIONAL, RULES
from eyas_operator.api.status import STATUS

Schema = dict[str, Any]
_DROPPED: Final = frozenset({"title", "$defs", "const", "prefixItems", "format", "examples"})
_COLUMNS: Final = (
    ("State", "string", ".status.state", 0),
    ("Attempt", "integer", ".status.attempt", 0),
    ("Restarts", "integer", ".status.restarts", 0),
    ("Step", "integer", ".status.progress.trainingStep", 0),
    ("Acked", "integer", ".status.progress.acked", 0),
    ("Lag", "integer", ".status.progress.lag", 0),
    ("Durable", "integer", ".status.progress.durableStep", 1),
    ("Epoch", "integer", ".status.storeEpoch", 1),
    ("Exact", "string", ".status.conditions[?(@.type=='Exact')].status", 1),
    ("Age", "date", ".metadata.creationTimestamp", 0),
)


def crd() -> Schema:
    """The whole CustomResourceDefinition; every call gives an equal tree of its own, without shared parts."""
    tree: Schema = json.loads(json.dumps(_crd()))
    return tree


def _crd() -> Schema:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
                "shortNames": [names.SHORT_NAME],
                "categories": ["all"],
            },
            "versions": [_version()],
        },
    }


def _version() -> Schema:
    return {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": openapi()},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.producers.replicas",
                "statusReplicasPath": ".status.producerReplicas",
                "labelSelectorPath": ".status.producerSelector",
            },
        },
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path} | ({"priority": priority} if priority else {})
            for name, kind, path, priority in _COLUMNS
        ],
    }


def openapi() -> Schema:
    """The schema of one job."""
    return {
        "type": "object",
        "description": "One training of one EAGLE3 draft.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec_schema(),
            "status": status_schema(),
        },
        # A label carries the name, so that people can select by it.
        VALIDATIONS: [
            {
                "rule": f"self.metadata.name.size() <= {names.NAME_LENGTH_MAX}",
                "message": f"metadata.name: must have at most {names.NAME_LENGTH_MAX} characters",
            }
        ],
    }


def spec_schema() -> Schema:
    """The spec, with defaults, bounds, descriptions and CEL."""
    raw = JobSpec.model_json_schema(by_alias=True, mode="validation")
    schema = structural(raw, raw.get("$defs", {}))
    _write_defaults(schema, JobSpec)
    schema[VALIDATIONS] = [{"rule": rule.cel, "message": f"{rule.path}: {rule.message}"} for rule in RULES]
    for part in OPTIONAL:
        rule = {
            "rule": f"has(self.{part}) == has(oldSelf.{part})",
            "message": f"spec.{part} cannot change; make a new job",
        }
        schema[VALIDATIONS].append(rule)
    for part in (*IMMUTABLE, *OPTIONAL):
        rule = {"rule": "self == oldSelf", "message": f"spec.{part} cannot change; make a new job"}
        schema["properties"][part].setdefault(VALIDATIONS, []).append(rule)
    return schema


def status_schema() -> Schema:
    """The status; written by the operator alone."""
    raw = STATUS.json_schema(by_alias=True, mode="serialization")
    schema = structural(raw, raw.get("$defs", {}))
    _strip(schema, ("default", "required"))
    conditions = schema["properties"]["conditions"]
    conditions["x-kubernetes-list-type"] = "map"
    conditions["x-kubernetes-list-map-keys"] = ["type"]
    conditions["items"]["required"] = ["type", "status", "reason", "message", "lastTransitionTime"]
    return schema


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """`schema` without references, null branches and keywords that a structural schema may not have."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        schema = dict(target) | {key: value for key, value in schema.items() if key != "$ref"}
    if schema.get("x-kubernetes-int-or-string"):
        return {key: value for key, value in schema.items() if key not in (*_DROPPED, "default")}
    branches = [branch for branch in schema.get("anyOf", ()) if branch.get("type") != "null"]
    if branches:
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
        return structural(dict(branches[0]) | rest, definitions)
    return _keywords(schema, definitions)


def _keywords(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    built: Schema = {key: value for key, value in schema.items() if key not in _DROPPED}
    if "const" in schema:
        built["enum"] = [schema["const"]]
    if "prefixItems" in schema:
        built["items"] = schema["prefixItems"][0]
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in built:
            built[bound], built[exclusive] = built[exclusive], True
    if "items" in built:
        built["items"] = structural(built["items"], definitions)
    if "properties" in built:
        built["properties"] = {key: structural(value, definitions) for key, value in built["properties"].items()}
        built.pop("additionalProperties", None)
    elif isinstance(built.get("additionalProperties"), Mapping):
        built["additionalProperties"] = structural(built["additionalProperties"], definitions)
    else:
        built.pop("additionalProperties", None)
    return built


def _write_defaults(schema: Schema, model: type[BaseModel]) -> None:
    """Defaults as the API server applies them: of objects only what their own fields do not say already."""
    for name, field in model.model_fields.items():
        place = schema["properties"][field.alias or name]
        place.pop("default", None)
        nested = _nested(field.annotation)
        if nested is not None:
            _write_defaults(place["items"] if place.get("type") == "array" else place, nested)
        if field.is_required():
            continue
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Model):
            place["default"] = _plain(default)
        elif default is not None and place.get("type") not in ("object", "array"):
            quantity = place.get("x-kubernetes-int-or-string") and isinstance(default, int)
            place["default"] = render_quantity(default) if quantity else getattr(default, "value", default)


def _plain(default: Model) -> Schema:
    """What `default` says beyond its own fields' defaults."""
    said = default.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    quantities = {"size", "segmentSize"}
    return {key: render_quantity(value) if key in quantities else value for key, value in said.items()}


def _nested(annotation: object) -> type[BaseModel] | None:
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, Model):
            return candidate
    return None


def _strip(schema: Any, keys: tuple[str, ...]) -> None:  # noqa: ANN401 - any part of a JSON tree
    """Remove keywords below `properties`, at every depth, without touching properties of those names."""
    if not isinstance(schema, dict):
        return
    for key in keys:
        schema.pop(key, None)
    for child in schema.get("properties", {}).values():
        _strip(child, keys)
    for key in ("items", "additionalProperties"):
        _strip(schema.get(key), keys)
