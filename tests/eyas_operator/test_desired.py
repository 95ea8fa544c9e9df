"""Manifests: what every child must be, over generated specs."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas_contract import env
from eyas_contract.config import JobConfig
from eyas_contract.errors import UserError
from eyas_operator import names
from eyas_operator.render import PLACEHOLDER_UID, render
from support.operator_world import ENVIRONMENT, SETTINGS, a_body
from support.restricted import violations

PLACEMENTS = st.fixed_dictionaries(
    {},
    optional={
        "nodeSelector": st.just({"pool": "x"}),
        "priorityClassName": st.just("high"),
        "terminationGracePeriodSeconds": st.integers(1, 600),
        "tolerations": st.just([{"key": "gpu", "operator": "Exists"}]),
        "affinity": st.just({"podAffinity": {}}),
    },
)
SCRATCH = {
    "containers": [
        {
            "image": "mine:1",
            "env": [{"name": "NCCL_DEBUG", "value": "WARN"}, {"name": "A", "value": "b"}],
            "resources": {"limits": {"memory": "9Gi"}},
            "volumeMounts": [{"name": "x-scratch", "mountPath": "/scratch"}],
        }
    ],
    "volumes": [{"name": "x-scratch", "emptyDir": {"sizeLimit": "1Gi"}}],
}
TEMPLATES = st.builds(lambda spec, scratch: {"spec": spec | (SCRATCH if scratch else {})}, PLACEMENTS, st.booleans())
STORES = st.sampled_from(
    [
        {"backend": "Mooncake"},
        {"backend": "Mooncake", "mooncake": {"nodes": {"replicas": 3, "segmentSize": "2Gi"}}},
        {
            "backend": "Mooncake",
            "mooncake": {"external": {"masterAddress": "pool:1", "masterMetricsAddress": "pool:2"}},
        },
        {"backend": "Mooncake", "mooncake": {"protocol": "RDMA"}},
        {"backend": "SharedDirectory"},
        {"backend": "SharedDirectory", "sharedDirectory": {"claimName": "nfs"}},
    ]
)
BODIES = st.builds(
    lambda store, producers, consumers, gpus, processes, template, fabric: a_body(
        store=store,
        producers={"replicas": producers, "gpus": gpus, "template": template},
        consumers={
            "replicas": consumers,
            "processesPerPod": processes,
            "gpus": processes if gpus else 0,
            "template": template,
        },
        fabric={"mode": "DevicePlugin" if fabric or "RDMA" in str(store) else "None"},
    ),
    STORES,
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 2),
    TEMPLATES,
    st.booleans(),
)


def rendered(body: dict[str, Any]) -> list[dict[str, Any]]:
    return list(render(body, ENVIRONMENT, SETTINGS))


def of_kind(manifests: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    stem = f"demo-{PLACEHOLDER_UID[:8]}-"
    return {
        manifest["metadata"]["name"].removeprefix(stem): manifest for manifest in manifests if manifest["kind"] == kind
    }


@settings(max_examples=25, deadline=None)
@given(BODIES)
def test_every_pod_is_restricted_and_lock_memory_is_asked_for_only_with_a_fabric(body: dict[str, Any]) -> None:
    fabric = body["spec"]["fabric"]["mode"] != "None"
    for name, pod in of_kind(rendered(body), "Pod").items():
        assert violations(pod, capabilities=frozenset({"IPC_LOCK"})) == [], name
        added = pod["spec"]["containers"][0]["securityContext"]["capabilities"].get("add", [])
        data_role = name.startswith(("producer", "consumer", "store-node"))
        assert added == (["IPC_LOCK"] if fabric and data_role else []), name


@settings(max_examples=25, deadline=None)
@given(BODIES)
def test_every_reference_inside_the_manifests_resolves(body: dict[str, Any]) -> None:
    manifests = rendered(body)
    configs, secrets = of_kind(manifests, "ConfigMap"), of_kind(manifests, "Secret")
    claims = {claim["metadata"]["name"] for claim in of_kind(manifests, "PersistentVolumeClaim").values()}
    stem = f"demo-{PLACEHOLDER_UID[:8]}-"
    for pod in of_kind(manifests, "Pod").values():
        spec = pod["spec"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = spec["containers"][0]["volumeMounts"]
        assert sorted(volumes) == sorted(mount["name"] for mount in mounts)
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        assert volumes["config"]["configMap"]["name"].removeprefix(stem) in configs
        for source in volumes["tokens"]["projected"]["sources"]:
            assert source["secret"]["name"].removeprefix(stem) in secrets
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim in claims | {"models", "data", "nfs"}
        variables = [entry["name"] for entry in spec["containers"][0]["env"]]
        assert len(set(variables)) == len(variables)


@settings(max_examples=10, deadline=None)
@given(BODIES)
def test_rendering_is_deterministic_json(body: dict[str, Any]) -> None:
    assert json.dumps(rendered(body)) == json.dumps(rendered(json.loads(json.dumps(body))))


@settings(max_examples=25, deadline=None)
@given(BODIES)
def test_configuration_is_what_the_runtime_decodes(body: dict[str, Any]) -> None:
    manifests = rendered(body)
    (config_map,) = of_kind(manifests, "ConfigMap").values()
    config = msgspec.json.decode(config_map["data"]["job.json"], type=JobConfig)
    consumers = body["spec"]["consumers"]
    assert config.world_size == consumers["replicas"] * consumers["processesPerPod"]
    assert config.training.device == ("cuda" if consumers["gpus"] else "cpu")
    assert config.store.external == ("external" in str(body["spec"]["store"]))
    assert (config.store.path is not None) == (config.store.backend == "SharedDirectory")
    pods = of_kind(manifests, "Pod")
    worlds = {
        entry["value"]
        for name, pod in pods.items()
        if name.startswith("consumer")
        for entry in pod["spec"]["containers"][0]["env"]
        if entry["name"] == env.WORLD_SIZE
    }
    assert worlds == {str(config.world_size)}


def test_configuration_says_nothing_that_a_runtime_does_by_default() -> None:
    """An older image refuses fields that it does not know, and must be able to do without those it does not need."""
    body = a_body()
    body["spec"]["training"].pop("deterministic", None)
    (config_map,) = of_kind(rendered(body), "ConfigMap").values()
    told = json.loads(config_map["data"]["job.json"])
    assert {"deterministic", "packing_tokens"}.isdisjoint(told["training"])
    assert "colocated" not in told
    assert msgspec.convert(told, JobConfig).training.deterministic


def test_tokens_reach_only_the_roles_that_may_hold_them() -> None:
    held: dict[str, set[str]] = {}
    for name, pod in of_kind(rendered(a_body()), "Pod").items():
        tokens = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "tokens")
        keys = {item["key"] for source in tokens["projected"]["sources"] for item in source["secret"]["items"]}
        held[name] = keys
    assert held["producer-0-o1"] == {env.TOKEN_PRODUCER, env.TOKEN_STORE}
    assert held["consumer-0-a1"] == {env.TOKEN_CONSUMER, env.TOKEN_STORE}
    assert held["store-node-0-o1"] == {env.TOKEN_STORE}
    assert {name for name, keys in held.items() if env.RECEIPT_KEY in keys} == {"metadata-e1-o1"}


def test_no_secret_value_is_in_any_manifest() -> None:
    for manifest in rendered(a_body()):
        if manifest["kind"] == "Secret":
            assert not {"data", "stringData"} & set(manifest)


def test_network_policies_close_every_pod_and_open_only_named_flows() -> None:
    policies = of_kind(rendered(a_body()), "NetworkPolicy")
    assert set(policies) == {"metadata", "producer", "consumer", "store-master", "store-node"}
    for policy in policies.values():
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policies["producer"]["spec"]["ingress"] == []
    into = {
        peer["podSelector"]["matchLabels"].get(names.LABEL_ROLE, "operator")
        for rule in policies["metadata"]["spec"]["ingress"]
        for peer in rule["from"]
    }
    assert into == {"producer", "consumer", "operator", "store-master", "store-node"}
    for rule in policies["metadata"]["spec"]["ingress"]:
        assert rule["ports"] == [{"port": env.METADATA_PORT, "protocol": "TCP"}]


def test_a_store_node_has_time_to_move_its_objects_when_it_has_to_go() -> None:
    pods = of_kind(rendered(a_body()), "Pod")
    node = next(pod for name, pod in pods.items() if name.startswith("store-node-"))["spec"]
    assert node["terminationGracePeriodSeconds"] == 60
    assert {"name": env.GRACE_SECONDS, "value": "60"} in node["containers"][0]["env"]


def test_gpus_and_fabric_resources_are_requested_per_pod() -> None:
    body = a_body(
        producers={"replicas": 1, "gpus": 1},
        consumers={"replicas": 1, "processesPerPod": 2, "gpus": 2},
        fabric={"mode": "DevicePlugin", "resourceName": "rdma/hca", "count": 3},
    )
    pods = of_kind(rendered(body), "Pod")
    for name, gpus in (("producer-0-o1", 1), ("consumer-0-a1", 2)):
        limits = pods[name]["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == gpus
        assert limits["rdma/hca"] == 3
    assert "rdma/hca" not in pods["metadata-e1-o1"]["spec"]["containers"][0]["resources"]["limits"]


def test_commands_are_the_supervisor_with_the_role_and_its_processes() -> None:
    pods = of_kind(rendered(a_body()), "Pod")
    assert pods["consumer-1-a1"]["spec"]["containers"][0]["command"] == [
        "python", "-m", "eyas_runtime.supervisor", "--role", "consumer", "--processes", "2", "--",
        "python", "-m", "eyas_runtime.train.consume",
    ]  # fmt: skip
    assert pods["producer-0-o1"]["spec"]["containers"][0]["command"] == [
        "python", "-m", "eyas_runtime.supervisor", "--role", "producer", "--",
        "python", "-m", "eyas_runtime.capture.produce",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["/etc/passwd", "/models/../etc", "relative/model", "/modelsx/a"])
def test_path_on_no_volume_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="is on no volume"):
        rendered(a_body(target={"model": path}))


def test_pods_stay_thirty_seconds_on_an_unreachable_node() -> None:
    for pod in of_kind(rendered(a_body()), "Pod").values():
        seconds = {entry["key"]: entry.get("tolerationSeconds") for entry in pod["spec"]["tolerations"]}
        assert seconds["node.kubernetes.io/unreachable"] == 30
        assert seconds["node.kubernetes.io/not-ready"] == 30


def test_metadata_claim_is_exclusive_and_the_service_selects_one_pod() -> None:
    manifests = rendered(a_body())
    claim = of_kind(manifests, "PersistentVolumeClaim")["metadata-e1"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    selector = of_kind(manifests, "Service")["metadata"]["spec"]["selector"]
    assert selector[names.LABEL_STORE_EPOCH] == "1"
    assert selector[names.LABEL_ORDINAL] == "1"
    peers = of_kind(manifests, "Service")["peers"]["spec"]
    assert peers["publishNotReadyAddresses"] is True


def test_variables_of_a_template_reach_its_pods_beside_ours() -> None:
    template = {"spec": {"containers": [{"env": [{"name": "A", "value": "b"}]}]}}
    pod = of_kind(rendered(a_body(producers={"replicas": 1, "template": template})), "Pod")["producer-0-o1"]
    values = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}
    assert values["HOME"] == "/tmp"
    assert values["A"] == "b"


def test_what_is_said_of_services_reaches_the_pods_that_have_no_other_template() -> None:
    """Else no job starts where all nodes are tainted, images are private, or a queue admits pods."""
    toleration = {"key": "gpu-only", "operator": "Exists", "effect": "NoSchedule"}
    pod = {"tolerations": [toleration], "imagePullSecrets": [{"name": "registry"}], "priorityClassName": "high"}
    template = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "drafts"}}, "spec": pod}
    body = a_body(store={"backend": "Mooncake"}, services={"template": template})
    found = set()
    for made in of_kind(rendered(body), "Pod").values():
        spec, labels = made["spec"], made["metadata"]["labels"]
        said = toleration in spec["tolerations"], "imagePullSecrets" in spec, "priorityClassName" in spec
        said = (*said, "kueue.x-k8s.io/queue-name" in labels)
        assert len(set(said)) == 1, made["metadata"]["name"]
        if said[0]:
            found.add(labels[names.LABEL_ROLE])
    assert found == {"metadata", "store-master"}


COMPONENTS = {
    "Service": {"peers": "job", "metadata": "metadata", "store-master": "store-master"},
    "ConfigMap": {"config-e1-a1": "job"},
    "Secret": {"tokens": "job", "reader": "job"},
    "PersistentVolumeClaim": {"metadata-e1": "metadata", "checkpoints": "consumer"},
    "PodDisruptionBudget": {"producer": "producer", "consumer": "consumer"},
}


def test_every_child_says_what_it_is_in_the_labels_that_everybody_knows() -> None:
    manifests = list(render(a_body(), ENVIRONMENT, replace(SETTINGS, version="1.2+x")))
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        common = {key.partition("/")[2]: value for key, value in labels.items() if key.startswith("app.kubernetes.io/")}
        assert common.pop("component")
        assert common == {
            "name": "eyas", "instance": "demo", "part-of": "eyas", "managed-by": "eyas-operator", "version": "1.2_x",
        }  # fmt: skip
    for kind, components in COMPONENTS.items():
        found = of_kind(manifests, kind)
        told = {name: it["metadata"]["labels"]["app.kubernetes.io/component"] for name, it in found.items()}
        assert told == components, kind
    for kind in ("Pod", "NetworkPolicy"):
        for name, it in of_kind(manifests, kind).items():
            assert name.startswith(it["metadata"]["labels"]["app.kubernetes.io/component"])


def test_another_version_of_the_operator_differs_in_the_label_of_what_it_makes_alone() -> None:
    """Else an upgrade would write every object of every job, or find that pods are not what they should be."""
    old, new = (list(render(a_body(), ENVIRONMENT, replace(SETTINGS, version=it))) for it in ("1", "2"))
    assert old != new
    for manifest in (*old, *new):
        del manifest["metadata"]["labels"]["app.kubernetes.io/version"]
    assert old == new
