"""The resource's types: what is accepted, what is refused, and in which words."""

import json
from typing import Any

import pytest

from eyas_contract.errors import UserError
from eyas_operator.api.base import parse_quantity, render_quantity
from eyas_operator.api.job import JobSpec
from eyas_operator.api.load import load_yaml
from eyas_operator.api.parse import parse
from eyas_operator.api.rules import IMMUTABLE, immutable_changes, immutable_digest
from eyas_operator.api.training import Training
from eyas_operator.errors import SpecError
from support.operator_world import a_body


def errors_of(body: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        parse(body)
    return caught.value.lines


def changed(path: str, value: object) -> dict[str, Any]:
    """A valid body with one field, given by its path under spec, set to `value` (a tuple () removes it)."""
    body = a_body()
    *parents, last = path.split(".")
    place = body["spec"]
    for parent in parents:
        place = place.setdefault(parent, {})
    if value == ():
        del place[last]
    else:
        place[last] = value
    return body


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("training.windowSize", 0, "spec.training.windowSize: must be at least 1"),
        ("training.windowSize", "64", "spec.training.windowSize: must be a whole number"),
        ("training.windowSize", 1.5, "spec.training.windowSize: must be a whole number"),
        ("training.windowSize", True, "spec.training.windowSize: must be a whole number"),
        ("training.learningRate", "1e-4", "spec.training.learningRate: must be a number"),
        ("training.learningRate", 0, "spec.training.learningRate: must be more than 0.0"),
        ("training.warmupRatio", 1, "spec.training.warmupRatio: must be less than 1.0"),
        ("training.microBatchSize", 9, "spec.training.microBatchSize: must be at most spec.training.windowSize"),
        ("training.packing", {}, "spec.training.packing.maxTokens: is required"),
        ("training.packing", {"maxTokens": 7}, "spec.training.packing.maxTokens: must be at least 8"),
        ("training.packing", True, "spec.training.packing: must be an object"),
        (
            "training.parallelism",
            {"sequence": 3},
            "spec.training.parallelism: tensor x sequence must divide "
            "spec.consumers.replicas x spec.consumers.processesPerPod",
        ),
        ("training.parallelism", {"sequence": 0}, "spec.training.parallelism.sequence: must be at least 1"),
        ("training.windowsize", 3, "spec.training.windowsize: is not a known field; did you mean windowSize?"),
        ("training.deterministic", "yes", "spec.training.deterministic: must be true or false"),
        ("target.model", (), "spec.target.model: is required"),
        ("target.model", "", "spec.target.model: must have at least 1 characters"),
        ("target.dtype", "fp8", "spec.target.dtype: must be float32, bfloat16 or float16"),
        ("target.captureLayers", [1, 2, 1001], "spec.target.captureLayers[2]: must be at most 1000"),
        ("target", [], "spec.target: must be an object"),
        ("data.prompts", "p.jsonl", "spec.data.prompts: must be a list"),
        ("data.prompts", [1], "spec.data.prompts[0]: must be a string"),
        ("data.prompts", [], "spec.data: needs exactly one of prompts and features"),
        ("data.features", ["/data/f"], "spec.data: needs exactly one of prompts and features"),
        (
            "store.maxResidentBytes",
            "1GB",
            "spec.store.maxResidentBytes: must be a quantity of bytes such as 512Mi or 140Gi",
        ),
        ("store.backend", "Redis", "spec.store.backend: must be Mooncake, SharedDirectory or Memory"),
        ("store.sharedDirectory", {}, "spec.store.sharedDirectory: is only for backend: SharedDirectory"),
        (
            "store.mooncake.protocol",
            "RDMA",
            "spec.fabric.mode: must be DevicePlugin when spec.store.mooncake.protocol is RDMA",
        ),
        (
            "store.mooncake.external",
            {"masterAddress": "pool:1", "masterMetricsAddress": "pool:2"},
            "spec.store.mooncake: needs at most one of nodes and external",
        ),
        ("volumes.checkpoints.claimName", "c", "spec.volumes.checkpoints: needs exactly one of claimName and size"),
        (
            "volumes.checkpoints.accessMode",
            "ReadWriteOnce",
            "spec.volumes.checkpoints.accessMode: must be ReadWriteMany when there are several consumers",
        ),
        (
            "consumers.gpus",
            1,
            "spec.consumers.gpus: must be 0 or equal to spec.consumers.processesPerPod: each rank has one GPU",
        ),
        ("evaluation", {"prompts": [], "everySteps": 4}, "spec.evaluation.prompts: must have at least 1 entries"),
        ("producers.replicas", 513, "spec.producers.replicas: must be at most 512"),
        (
            "recovery.backoff",
            {"baseSeconds": 5, "maxSeconds": 1},
            "spec.recovery.backoff.maxSeconds: must be at least spec.recovery.backoff.baseSeconds",
        ),
        (
            "producers.template",
            {"spec": {"hostNetwork": True}},
            "spec.producers.template.spec.hostNetwork: is not a known field",
        ),
        (
            "producers.template",
            {"spec": {"serviceAccountName": "admin"}},
            "spec.producers.template.spec.serviceAccountName: is not a known field",
        ),
        (
            "producers.template",
            {"spec": {"volumes": [{"name": "x-a", "hostPath": {"path": "/"}}]}},
            "spec.producers.template.spec.volumes[0].hostPath: is not a known field",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and " " not in value else None,
)
def test_refused_with_its_field_path(path: str, value: object, line: str) -> None:
    assert line in errors_of(changed(path, value))


def test_packing_and_a_number_of_samples_exclude_each_other() -> None:
    both = {"windowSize": 8, "microBatchSize": 2, "packing": {"maxTokens": 4096}}
    line = "spec.training.packing: needs spec.training.microBatchSize: 1, because a pack takes as many samples as fit"
    assert errors_of(a_body(training=both)) == (f"{line} in maxTokens",)
    packed = parse(a_body(training={**both, "microBatchSize": 1})).spec
    assert packed.training.packing is not None
    assert packed.training.packing.max_tokens == 4096
    assert parse(a_body(training={"microBatchSize": 2})).spec.training.packing is None


def test_every_error_is_reported_at_once() -> None:
    body = changed("training.windowSize", 0)
    body["spec"]["target"]["dtype"] = "fp8"
    body["spec"]["draft"] = {"steps": 99}
    assert len(errors_of(body)) == 3


def test_a_field_that_a_later_operator_adds_changes_no_digest_until_it_is_set() -> None:
    """Else an upgrade would find the immutable part of every running job changed."""

    class LaterTraining(Training):
        newly: int = 3
        found: str | None = None

    class LaterSpec(JobSpec):
        training: LaterTraining = LaterTraining()

    body = changed("training.learningRate", 2e-4)["spec"]

    def later(**training: object) -> str:
        given = body | {"training": body["training"] | training}
        return immutable_digest(LaterSpec.model_validate_json(json.dumps(given), strict=True))

    present = immutable_digest(JobSpec.model_validate_json(json.dumps(body), strict=True))
    assert later() == later(newly=3) == present
    assert later(newly=4) != present


def test_rounds_must_begin_where_capture_groups_do() -> None:
    body = changed("evaluation", {"prompts": ["/data/h.jsonl"], "everySteps": 1})
    assert parse(body).spec.evaluation is not None
    body["spec"]["data"]["groupSize"] = 16
    with pytest.raises(SpecError, match=r"spec\.evaluation\.everySteps: times .* must be a multiple of"):
        parse(body)


def test_memory_store_needs_the_colocated_mode() -> None:
    body = a_body(store={"backend": "Memory"})
    assert "spec.store.backend: Memory keeps features inside one process and needs mode: Colocated" in errors_of(body)
    parse(a_body(store={"backend": "Memory"}, mode="Colocated"))


def test_wrong_version_is_refused() -> None:
    assert errors_of(a_body() | {"apiVersion": "eyas.dev/v1"}) == ("apiVersion: must be eyas.dev/v1alpha1",)


def test_defaults_are_documented_values() -> None:
    spec = parse(a_body(training={})).spec
    assert (spec.training.window_size, spec.training.learning_rate, spec.training.checkpoint.keep) == (64, 1e-4, 3)
    assert spec.draft.steps == 7
    assert spec.recovery.backoff.max_seconds == 60


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("140Gi", 140 * 2**30), ("512Mi", 2**29), ("1.5Gi", 3 * 2**29), ("2G", 2 * 10**9), (7, 7), ("0", 0)],
)
def test_quantities(text: object, nbytes: int) -> None:
    assert parse_quantity(text) == nbytes
    assert parse_quantity(render_quantity(nbytes)) == nbytes


@pytest.mark.parametrize("text", ["", "1 Gi", "-1Gi", "1e9", "Gi", True, None])
def test_bad_quantities(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_quantity(text)


def test_yaml_reads_scientific_numbers_as_numbers() -> None:
    body = load_yaml("a: 1e-4\nb: 3\nc: 0x10\nd: 2026-01-01\ne: .5\nf: 1_000\n")
    assert body == {"a": 1e-4, "b": 3, "c": "0x10", "d": "2026-01-01", "e": 0.5, "f": "1_000"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "line 2: a is given twice"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "must be one YAML object"),
        ("a: !!python/object/apply:os.system [x]\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
    ],
)
def test_bad_yaml_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_yaml(text)


def test_immutable_digest_sees_every_immutable_part_and_nothing_else() -> None:
    original = immutable_digest(parse(a_body()).spec)
    edits: dict[str, dict[str, Any]] = {
        "target": changed("target.threads", 2),
        "data": changed("data.epochs", 2),
        "draft": changed("draft", {"steps": 3}),
        "training": changed("training.windowSize", 16),
        "store": changed("store.maxResidentBytes", "2Gi"),
        "volumes": changed("volumes.metadata", {"size": "1Gi"}),
        "mode": changed("mode", "Colocated"),
    }
    assert set(edits) == set(IMMUTABLE)
    edits["evaluation"] = changed("evaluation", {"prompts": ["/data/h.jsonl"], "everySteps": 4})
    before = parse(a_body()).spec
    for part, body in edits.items():
        assert immutable_digest(parse(body).spec) != original
        assert immutable_changes(before, parse(body).spec) == (part,)
    for body in (
        changed("producers.replicas", 5),
        changed("consumers.replicas", 5),
        changed("suspend", True),
        changed("recovery.stallSeconds", 9),
        changed("store.digest", "Blake3"),
    ):
        assert immutable_digest(parse(body).spec) == original
