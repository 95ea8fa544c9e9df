"""The generated CustomResourceDefinition on a real API server: accepted, defaulted, refused, scaled, printed."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from eyas_operator.api.crd import crd
from eyas_operator.api.incidents import Incident
from eyas_operator.api.load import load_yaml
from eyas_operator.api.parse import parse
from eyas_operator.api.progress import BestCheckpoint, CheckpointStatus, Progress, Result
from eyas_operator.api.rules import IMMUTABLE, RULES
from eyas_operator.api.status import (
    Condition,
    Gang,
    JobStatus,
    MetadataState,
    NodeStrikes,
    RoleStatus,
    Unit,
    dump_status,
)
from eyas_operator.errors import SpecError
from eyas_operator.names import Role
from support import refusals
from support.kube_apiserver import MERGE, KubeApiServer, Reply
from support.kube_operator import JOBS
from support.operator_world import a_body

pytestmark = pytest.mark.apiserver
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
NAME = "disaggtrainingjobs.eyas.dev"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"


@pytest.fixture(scope="module")
def namespace(jobs: KubeApiServer) -> str:
    return jobs.namespace("crd")


def submit(server: KubeApiServer, namespace: str, name: str, **spec: object) -> Reply:
    body = a_body(**spec) | {"metadata": {"name": name}}
    return server.ask("POST", f"{JOBS.format(namespace)}?fieldValidation=Strict", body)


def change(server: KubeApiServer, namespace: str, name: str, **spec: object) -> Reply:
    return server.ask("PATCH", f"{JOBS.format(namespace)}/{name}", {"spec": spec}, content=MERGE)


def test_definition_is_accepted_as_structural_and_within_the_cost_budget(jobs: KubeApiServer) -> None:
    # Rules whose estimated cost is over the budget are refused; a schema that is no structure becomes a condition.
    found = jobs.must("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{NAME}")
    conditions = {it["type"]: it["status"] for it in found["status"]["conditions"]}
    assert conditions["Established"] == conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"
    assert found["spec"]["names"]["shortNames"] == ["dtj"]
    # Nothing of what we generate was dropped on the way.
    assert found["spec"]["versions"][0]["schema"] == crd()["spec"]["versions"][0]["schema"]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_is_accepted(jobs: KubeApiServer, namespace: str, file: Path) -> None:
    body = load_yaml(file.read_text())
    body["metadata"] |= {"name": f"example-{body['metadata']['name']}", "namespace": namespace}
    jobs.must("POST", f"{JOBS.format(namespace)}?fieldValidation=Strict&dryRun=All", body)


def test_defaults_of_the_api_server_are_those_of_the_types(jobs: KubeApiServer, namespace: str) -> None:
    spec = {"target": {"model": "/models/m"}, "data": {"prompts": ["/data/p"]}}
    body = a_body() | {"spec": spec, "metadata": {"name": "defaults"}}
    stored = jobs.must("POST", JOBS.format(namespace), body)
    assert stored["spec"]["volumes"]["checkpoints"]["size"] == "100Gi"
    assert stored["spec"]["producers"]["replicas"] == 1
    wanted = a_body() | {"spec": spec}
    assert parse(wanted | {"spec": stored["spec"]}).spec == parse(wanted).spec


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no data": ({"data": {"maxLength": 8}}, "spec.data: needs exactly one of prompts and features"),
    "two kinds of data": (
        {"data": {"prompts": ["/data/p"], "features": ["/data/f"]}},
        "spec.data: needs exactly one of prompts and features",
    ),
    "two sources of checkpoints": (
        {"volumes": {"checkpoints": {"size": "1Gi", "claimName": "c"}}},
        "spec.volumes.checkpoints: needs exactly one of claimName and size",
    ),
    "checkpoints of one node for several consumers": (
        {
            "volumes": {"checkpoints": {"size": "1Gi", "accessMode": "ReadWriteOnce"}},
            "consumers": {"replicas": 2},
        },
        "spec.volumes.checkpoints.accessMode: must be ReadWriteMany when there are several consumers",
    ),
    "memory between pods": ({"store": {"backend": "Memory"}}, "spec.store.backend: Memory keeps features inside one"),
    "settings of another store": (
        {"store": {"backend": "SharedDirectory", "mooncake": {}}},
        "spec.store.mooncake: is only for backend: Mooncake",
    ),
    "own nodes and an external pool": (
        {
            "store": {
                "mooncake": {
                    "nodes": {},
                    "external": {"masterAddress": "m:1", "masterMetricsAddress": "m:2"},
                }
            }
        },
        "spec.store.mooncake: needs at most one of nodes and external",
    ),
    "RDMA without a fabric": (
        {"store": {"mooncake": {"protocol": "RDMA"}}},
        "spec.fabric.mode: must be DevicePlugin when spec.store.mooncake.protocol is RDMA",
    ),
    "settings of a folder that is none": (
        {"store": {"backend": "Mooncake", "sharedDirectory": {}}},
        "spec.store.sharedDirectory: is only for backend: SharedDirectory",
    ),
    "micro-batch over the window": (
        {"training": {"windowSize": 2, "microBatchSize": 3}},
        "spec.training.microBatchSize: must be at most spec.training.windowSize",
    ),
    "packs of a number of samples": (
        {"training": {"microBatchSize": 2, "packing": {"maxTokens": 64}}},
        "spec.training.packing: needs spec.training.microBatchSize: 1, because a pack takes as many samples as fit",
    ),
    "a grid that the ranks do not fill": (
        {"training": {"parallelism": {"tensor": 3}}},
        "spec.training.parallelism: tensor x sequence must divide spec.consumers.replicas x",
    ),
    "held-out prompts beside features": (
        {"data": {"features": ["/data/f"]}, "evaluation": {"prompts": ["/data/h"], "everySteps": 4}},
        "spec.evaluation: needs spec.data.prompts: without a target there is nobody to capture held-out prompts",
    ),
    "rounds that begin within a capture group": (
        {"training": {"windowSize": 2}, "evaluation": {"prompts": ["/data/h"], "everySteps": 1}},
        "spec.evaluation.everySteps: times spec.training.windowSize must be a multiple of spec.data.groupSize",
    ),
    "fewer GPUs than ranks": (
        {"consumers": {"replicas": 2, "processesPerPod": 2, "gpus": 1}},
        "spec.consumers.gpus: must be 0 or equal to spec.consumers.processesPerPod: each rank has one GPU",
    ),
    "backoff upside down": (
        {"recovery": {"backoff": {"baseSeconds": 9, "maxSeconds": 8}}},
        "spec.recovery.backoff.maxSeconds: must be at least spec.recovery.backoff.baseSeconds",
    ),
    "too many ranks": ({"consumers": {"replicas": 513}}, "spec.consumers.replicas"),
    "a list beyond its bound": (
        {"consumers": {"template": {"spec": {"containers": [{}, {}]}}}},
        "spec.consumers.template.spec.containers",
    ),
    "a field that nobody knows": ({"consumers": {"replica": 2}}, 'unknown field "spec.consumers.replica"'),
    "a host path": (
        {"producers": {"template": {"spec": {"volumes": [{"name": "x-a", "hostPath": {"path": "/"}}]}}}},
        "hostPath",
    ),
    "a path that is no string": ({"target": {"model": 7}}, "spec.target.model"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_spec_is_refused_with_a_sentence_that_names_the_field(
    jobs: KubeApiServer, namespace: str, what: str
) -> None:
    spec, sentence = REFUSED[what]
    reply = submit(jobs, namespace, "refused", **spec)
    assert reply.status in (400, 422), reply.message
    assert sentence in reply.message


def test_every_rule_over_several_fields_refuses_something_here() -> None:
    said = [sentence for _, sentence in REFUSED.values()]
    for rule in RULES:
        assert any(f"{rule.path}: {rule.message}".startswith(it) for it in said), rule.path


@pytest.mark.parametrize("what", refusals.REFUSED)
def test_value_that_cannot_work_is_refused_with_one_sentence_at_its_field(
    jobs: KubeApiServer, namespace: str, what: str
) -> None:
    wrong = refusals.REFUSED[what]
    reply = submit(jobs, namespace, "refused", **refusals.changed(a_body(), wrong.changes)["spec"])
    assert reply.status == 422, reply.message
    (cause,) = reply.body["details"]["causes"]
    assert cause["field"] == wrong.field
    assert cause["message"].endswith(f": {wrong.says}")


@pytest.mark.parametrize("layers", [[], [1, 2], [3, 2]])
def test_too_few_layers_are_told_once(jobs: KubeApiServer, namespace: str, layers: list[int]) -> None:
    reply = submit(jobs, namespace, "refused", target={"model": "/models/m", "captureLayers": layers})
    (cause,) = reply.body["details"]["causes"]
    assert "spec.target.captureLayers in body should have at least 3 items" in cause["message"]


@pytest.mark.parametrize("what", refusals.TAKEN)
def test_neighbours_of_what_is_refused_are_taken(jobs: KubeApiServer, namespace: str, what: str) -> None:
    body = refusals.changed(a_body(), refusals.TAKEN[what]) | {"metadata": {"name": "taken"}}
    taken = jobs.must("POST", f"{JOBS.format(namespace)}?fieldValidation=Strict&dryRun=All", body)
    assert parse(body | {"spec": taken["spec"]}).spec == parse(body).spec


def test_api_server_and_operator_agree_about_every_path_of_these_parts(jobs: KubeApiServer, namespace: str) -> None:
    # The server compares paths in CEL, the operator in Python.
    parts = ("tmp", "etc", "eyas", "a", "..", ".", "")
    disagreed = []
    for depth in (1, 2, 3):
        for path in ("/" + "/".join(it) for it in product(parts, repeat=depth)):
            body = refusals.changed(a_body(), refusals.mounted(path)) | {"metadata": {"name": "tried"}}
            reply = jobs.ask("POST", f"{JOBS.format(namespace)}?dryRun=All", body)
            if (reply.status == 201) != is_accepted(body):
                disagreed.append((path, reply.message))
    assert disagreed == []


def is_accepted(body: dict[str, Any]) -> bool:
    try:
        parse(body)
    except SpecError:
        return False
    return True


def test_long_name_is_refused(jobs: KubeApiServer, namespace: str) -> None:
    assert "metadata.name: must have at most 63 characters" in submit(jobs, namespace, "n" * 64).message
    assert submit(jobs, namespace, "n" * 63).status == 201


CHANGED: dict[str, dict[str, Any]] = {
    "mode": {"mode": "Colocated"},
    "target": {"target": {"model": "/models/another"}},
    "data": {"data": {"seed": 43}},
    "draft": {"draft": {"steps": 5}},
    "training": {"training": {"windowSize": 16}},
    "store": {"store": {"maxResidentBytes": "2Gi"}},
    "volumes": {"volumes": {"metadata": {"size": "11Gi"}}},
    "evaluation": {"evaluation": {"prompts": ["/data/held-out"], "everySteps": 5}},
}


@pytest.fixture(scope="module")
def fixed(jobs: KubeApiServer, namespace: str) -> str:
    assert submit(jobs, namespace, "fixed").status == 201
    return "fixed"


@pytest.mark.parametrize("part", CHANGED)
def test_what_fixes_the_result_cannot_change(jobs: KubeApiServer, namespace: str, fixed: str, part: str) -> None:
    reply = change(jobs, namespace, fixed, **CHANGED[part])
    assert reply.status == 422, f"{part} could be changed"
    assert f"spec.{part} cannot change; make a new job" in reply.message


def test_every_immutable_part_is_tried() -> None:
    assert set(IMMUTABLE) | {"evaluation"} == set(CHANGED)


def test_sizes_of_the_pools_and_recovery_may_change(jobs: KubeApiServer, namespace: str, fixed: str) -> None:
    reply = change(
        jobs,
        namespace,
        fixed,
        producers={"replicas": 5},
        consumers={"replicas": 3, "processesPerPod": 1},
        suspend=True,
        recovery={"maxRestartsWithoutProgress": 3},
    )
    assert reply.status == 200, reply.message


def test_scale_reads_and_writes_producers_and_names_their_selector(jobs: KubeApiServer, namespace: str) -> None:
    assert submit(jobs, namespace, "scaled").status == 201
    path = f"{JOBS.format(namespace)}/scaled"
    status = dump_status(JobStatus(producer_replicas=2, producer_selector="eyas.dev/role=producer"))
    jobs.must("PATCH", f"{path}/status", {"status": status}, content=MERGE)
    scale = jobs.must("GET", f"{path}/scale")
    assert scale["spec"]["replicas"] == scale["status"]["replicas"] == 2
    assert scale["status"]["selector"] == "eyas.dev/role=producer"
    jobs.must("PATCH", f"{path}/scale", {"spec": {"replicas": 7}}, content=MERGE)
    assert jobs.must("GET", path)["spec"]["producers"]["replicas"] == 7


def test_status_is_written_by_its_own_path_alone(jobs: KubeApiServer, namespace: str) -> None:
    assert submit(jobs, namespace, "apart").status == 201
    path = f"{JOBS.format(namespace)}/apart"
    jobs.must("PATCH", path, {"status": {"attempt": 9}}, content=MERGE)
    assert "status" not in jobs.must("GET", path)
    jobs.must("PATCH", f"{path}/status", {"status": {"attempt": 9}, "spec": {"suspend": True}}, content=MERGE)
    found = jobs.must("GET", path)
    assert found["status"]["attempt"] == 9
    assert found["spec"]["suspend"] is False


def test_whole_status_survives_the_schema(jobs: KubeApiServer, namespace: str) -> None:
    # A field that the schema lacks would be pruned without a word.
    assert submit(jobs, namespace, "whole").status == 201
    status = dump_status(
        JobStatus(
            attempt=2,
            conditions=(
                Condition(
                    type="Ready",
                    status="True",
                    reason="AllReady",
                    message="m",
                    last_transition_time="2026-01-01T00:00:00.000Z",
                    observed_generation=1,
                ),
            ),
            units=(Unit(role=Role.PRODUCER, index=0, serial=3, seen=(0,), last_class="Crash"),),
            gang=Gang(replicas=2, draining_reason="resize"),
            metadata=MetadataState(claim_uid="u", damaged_epochs=(1,)),
            roles=(RoleStatus(name=Role.PRODUCER, desired=2, ready=1, restarts=0),),
            progress=Progress(step=3, loss="0.5"),
            checkpoint=CheckpointStatus(step=2, directory="d", time="t"),
            incidents=(Incident(klass="Crash", unit="producer-1", source="Operator", message="m"),),
            strikes=(NodeStrikes(node="n", strikes=1, last_time="t"),),
            result=Result(
                steps=1,
                samples_trained=2,
                samples_dead=0,
                checkpoint_directory="d",
                weights_sha256="e",
                exact=True,
                incidents=1,
                restarts=1,
                best=BestCheckpoint(step=1, directory="d", eval_loss="0.5"),
            ),
        )
    )
    path = f"{JOBS.format(namespace)}/whole"
    jobs.must("PATCH", f"{path}/status", {"status": status}, content=MERGE)
    assert jobs.must("GET", path)["status"] == status


def test_table_has_the_columns_that_people_watch(jobs: KubeApiServer, namespace: str) -> None:
    assert submit(jobs, namespace, "shown").status == 201
    status = dump_status(JobStatus(state="Running", attempt=3, restarts=2, progress=Progress(training_step=40, lag=7)))
    jobs.must("PATCH", f"{JOBS.format(namespace)}/shown/status", {"status": status}, content=MERGE)
    table = jobs.must("GET", f"{JOBS.format(namespace)}/shown", accept=TABLE)
    columns = [column["name"] for column in table["columnDefinitions"]]
    assert {"Name", "State", "Attempt", "Restarts", "Step", "Acked", "Lag", "Age"} <= set(columns)
    row = dict(zip(columns, table["rows"][0]["cells"], strict=True))
    assert (row["State"], row["Attempt"], row["Restarts"], row["Step"], row["Lag"]) == ("Running", 3, 2, 40, 7)


def test_explain_finds_a_sentence_for_every_field(jobs: KubeApiServer) -> None:
    document = jobs.must("GET", "/openapi/v3/apis/eyas.dev/v1alpha1")
    schema = document["components"]["schemas"]["dev.eyas.v1alpha1.DisaggTrainingJob"]
    silent = list(_silent(schema["properties"]["spec"], "spec")) + list(_silent(schema["properties"]["status"], ""))
    assert silent == []


def _silent(schema: dict[str, Any], path: str) -> Iterator[str]:
    for name, child in schema.get("properties", {}).items():
        if not child.get("description"):
            yield f"{path}.{name}"
        yield from _silent(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _silent(schema[key], f"{path}[]")
