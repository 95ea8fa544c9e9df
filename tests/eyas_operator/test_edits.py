"""Which objects were edited since they were applied, told from the API server's account of who set which field."""

import json
from typing import Any

import pytest

from eyas_operator.actions import Apply
from eyas_operator.edits import is_ours
from eyas_operator.plan import Plan, plan
from eyas_operator.world import Children, World
from support.model_cluster import ModelCluster
from support.operator_world import ENVIRONMENT, JOB, SETTINGS, run

MANIFEST: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "a", "namespace": "b", "labels": {"x": "1", "y": "2"}, "ownerReferences": [{"uid": "u"}]},
    "spec": {
        "selector": {"p": "q"},
        "clusterIP": None,
        "ports": [{"name": "one", "port": 1, "protocol": "TCP"}, {"name": "two", "port": 2, "protocol": "TCP"}],
        "finalizers": ["f"],
    },
}
PORT = {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}}
FIELDS: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:x": {}, "f:y": {}}, "f:ownerReferences": {'k:{"uid":"u"}': {}}},
    "f:spec": {
        "f:selector": {},
        "f:ports": {'k:{"port":1,"protocol":"TCP"}': PORT, 'k:{"port":2,"protocol":"TCP"}': PORT},
        "f:finalizers": {'v:"f"': {}},
    },
}


def without(*path: str) -> dict[str, Any]:
    """`FIELDS` with one field less; a part that is empty then is not listed either."""
    fields: dict[str, Any] = json.loads(json.dumps(FIELDS))
    parts = [fields]
    for key in path[:-1]:
        parts.append(parts[-1][key])
    for part, key in reversed(list(zip(parts, path, strict=True))):
        if key == path[-1] or not part[key]:
            del part[key]
    return fields


def test_an_object_whose_every_field_is_listed_is_as_it_was_applied() -> None:
    assert is_ours(json.dumps(FIELDS).encode(), MANIFEST)
    more = FIELDS | {"f:data": {"f:z": {}}}
    assert is_ours(json.dumps(more).encode(), MANIFEST), "an older version may have applied more"


@pytest.mark.parametrize(
    "path",
    [
        ("f:metadata",),
        ("f:metadata", "f:labels", "f:y"),
        ("f:metadata", "f:ownerReferences", 'k:{"uid":"u"}'),
        ("f:spec",),
        ("f:spec", "f:selector"),
        ("f:spec", "f:ports", 'k:{"port":2,"protocol":"TCP"}'),
        ("f:spec", "f:ports", 'k:{"port":1,"protocol":"TCP"}', "f:name"),
        ("f:spec", "f:finalizers", 'v:"f"'),
    ],
    ids="/".join,
)
def test_a_field_that_is_listed_no_more_was_edited(path: tuple[str, ...]) -> None:
    assert not is_ours(json.dumps(without(*path)).encode(), MANIFEST)


def a_plan(cluster: ModelCluster, **account: Any) -> Plan:  # noqa: ANN401 - fields of Child
    """A plan for a job at rest, with this account of the fields of all its objects."""
    record = run(cluster.read_job(JOB.namespace, JOB.name))
    assert record is not None
    children = run(cluster.list_children(JOB))
    others = tuple(type(it)(kind=it.kind, metadata=it.metadata, **account) for it in children.others)
    world = World(children=Children(pods=children.pods, claims=children.claims, others=others), report=cluster.report)
    return plan(record, world, cluster.now, ENVIRONMENT, SETTINGS)


def test_every_applied_object_is_applied_again_once_its_fields_are_not_ours() -> None:
    cluster = ModelCluster().started()
    cluster.passes(5)
    todo = a_plan(cluster, fields=b"{}").actions
    assert {action.manifest["kind"] for action in todo if isinstance(action, Apply)} == {
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
    }
    assert all(isinstance(action, Apply) for action in todo)


def test_where_nobody_keeps_account_nothing_is_put_back() -> None:
    """A run on a local machine: what it stored there is never replaced by metadata alone."""
    cluster = ModelCluster().started()
    cluster.passes(5)
    for (kind, _), thing in cluster.things.items():
        if kind == "ConfigMap":
            thing.manifest["metadata"]["labels"]["app.kubernetes.io/name"] = "another"
    assert not a_plan(cluster).actions
    (relabelled,) = [it for it in a_plan(cluster, fields=b"{}").actions if "ConfigMap" in str(it)]
    assert isinstance(relabelled, Apply)
    assert set(relabelled.manifest) == {"apiVersion", "kind", "metadata"}
