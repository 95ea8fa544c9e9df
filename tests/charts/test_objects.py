"""What the chart makes: names, labels, selectors, the operator's settings, and what switches what on."""

import json
import re
from typing import Any

import pytest

from eyas_operator import names
from eyas_operator.api.crd import crd
from eyas_operator.desired.access import OPERATOR_LABELS
from eyas_operator.settings import ENVIRONMENT_PREFIX, Settings, settings_from
from support.helm import CHART, MONITORING, NAMESPACE, POOL, Manifest, helm, of_kind, only, pods, rendered

pytestmark = pytest.mark.chart
EVERYTHING = POOL | MONITORING | {"watchNamespaces": ["team-a", "team-b"]}
CLUSTER_WIDE = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}


def operator_environment(values: dict[str, Any] | None = None) -> dict[str, str]:
    container = pods([only(rendered(values), "Deployment")])["Deployment/eyas-operator"]["spec"]["containers"][0]
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def test_the_chart_passes_strict_lint() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_every_object_is_labelled_and_where_the_release_is(values: dict[str, Any]) -> None:
    manifests = rendered(values)
    assert len({(e["kind"], e["metadata"]["name"], e["metadata"].get("namespace")) for e in manifests}) == len(
        manifests
    )
    for entry in manifests:
        meta = entry["metadata"]
        wanted = {
            "helm.sh/chart",
            *(f"app.kubernetes.io/{key}" for key in ("name", "instance", "version", "managed-by")),
        }
        assert wanted <= set(meta["labels"]), meta["name"]
        assert len(meta["name"]) <= names.NAME_LENGTH_MAX
        if entry["kind"] in CLUSTER_WIDE:
            assert "namespace" not in meta
        elif "Role" not in entry["kind"]:
            assert meta["namespace"] == NAMESPACE, meta["name"]


def test_the_default_install_needs_nothing_that_a_bare_cluster_lacks() -> None:
    groups = {entry["apiVersion"].rpartition("/")[0] for entry in rendered()}
    assert groups == {
        "", "apps", "policy", "networking.k8s.io", "rbac.authorization.k8s.io", "apiextensions.k8s.io",
    }  # fmt: skip
    assert not of_kind(rendered(), "StatefulSet")


def test_the_definition_is_the_types_and_outlives_the_chart() -> None:
    made = only(rendered(), "CustomResourceDefinition")
    assert made["spec"] == crd()["spec"]
    assert made["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not of_kind(rendered({"crds": {"enabled": False}}), "CustomResourceDefinition")
    loose = only(rendered({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert "annotations" not in loose["metadata"]


def test_policies_of_jobs_find_the_operator_by_its_labels_whatever_its_name() -> None:
    for values in ({}, {"nameOverride": "other"}, {"fullnameOverride": "other"}):
        labels = only(rendered(values), "Deployment")["spec"]["template"]["metadata"]["labels"]
        assert OPERATOR_LABELS.items() <= labels.items()


def test_every_selector_finds_the_pods_it_is_meant_for_and_no_others() -> None:
    manifests = rendered(EVERYTHING)
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(manifests).items()}

    def found(selector: dict[str, str]) -> set[str]:
        return {name for name, present in labels.items() if selector.items() <= present.items()}

    assert found(of_kind(manifests, "Service")["eyas-operator-metrics"]["spec"]["selector"]) == {
        "Deployment/eyas-operator"
    }
    master = of_kind(manifests, "Service")["eyas-pool-master"]
    assert found(master["spec"]["selector"]) == {"Deployment/eyas-pool-master"}
    for name, entry in of_kind(manifests, "Deployment").items():
        assert found(entry["spec"]["selector"]["matchLabels"]) == {f"Deployment/{name}"}
    policies = of_kind(manifests, "NetworkPolicy")
    assert found(policies["eyas-pool"]["spec"]["podSelector"]["matchLabels"]) == {
        "Deployment/eyas-pool-master",
        "Deployment/eyas-pool-node",
    }
    assert found(policies["eyas-operator"]["spec"]["podSelector"]["matchLabels"]) == {"Deployment/eyas-operator"}


def test_the_shared_pool_lets_in_every_role_of_a_job_that_uses_it() -> None:
    # Those of a job with nodes of its own are the only others.
    own = {names.Role.STORE_MASTER, names.Role.STORE_NODE}
    peers = of_kind(rendered(EVERYTHING), "NetworkPolicy")["eyas-pool"]["spec"]["ingress"][0]["from"]
    (roles,) = [entry for peer in peers for entry in peer["podSelector"].get("matchExpressions", ())]
    assert set(roles["values"]) == {role.value for role in names.Role} - own


def test_pods_of_the_shared_pool_leave_a_lost_node_by_themselves() -> None:
    made = of_kind(rendered(EVERYTHING), "Deployment")
    for name in ("eyas-pool-master", "eyas-pool-node"):
        tolerated = {
            entry["key"]: entry["tolerationSeconds"]
            for entry in made[name]["spec"]["template"]["spec"]["tolerations"]
            if entry.get("effect") == "NoExecute"
        }
        assert tolerated == {"node.kubernetes.io/not-ready": 30, "node.kubernetes.io/unreachable": 30}
    assert made["eyas-pool-node"]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_no_pod_of_a_job_is_selected_by_the_chart() -> None:
    # Job pods carry app.kubernetes.io/name, too: a Service that took one of them for the operator would be a hole.
    job = names.JobIdentity(namespace=NAMESPACE, name="eyas", uid="00000000-0000-0000-0000-000000000000")
    for role in names.Role:
        labels = names.pod_labels(job, names.PodIdentity(role=role, index=0, serial=1))
        for entry in rendered(EVERYTHING):
            selector = entry.get("spec", {}).get("selector")
            if entry["kind"] in ("Service", "Deployment", "StatefulSet", "PodDisruptionBudget"):
                assert selector, entry["metadata"]["name"]
                wanted = selector.get("matchLabels", selector)
                assert not wanted.items() <= labels.items(), entry["metadata"]["name"]


def test_the_defaults_of_the_settings_are_those_of_the_code() -> None:
    said = {k: v for k, v in operator_environment().items() if k.removeprefix(ENVIRONMENT_PREFIX).lower() in _FIELDS}
    assert settings_from(said) == Settings()
    assert {f"{ENVIRONMENT_PREFIX}RUNTIME_IMAGE", f"{ENVIRONMENT_PREFIX}RESYNC_SECONDS"} <= set(said)


_FIELDS = set(Settings.__annotations__)


def test_every_setting_in_the_values_is_one_that_the_code_reads() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    fields = {re.sub(r"([A-Z])", r"_\1", key).lower() for key in schema["properties"]["settings"]["properties"]}
    assert fields <= _FIELDS


def test_the_operator_is_told_where_it_is_and_what_it_watches() -> None:
    assert operator_environment()["EYAS_OPERATOR_WATCH_NAMESPACES"] == NAMESPACE
    assert operator_environment({"watchNamespaces": ["b", "a"]})["EYAS_OPERATOR_WATCH_NAMESPACES"] == "b,a"
    assert operator_environment({"watchNamespaces": ["*"]})["EYAS_OPERATOR_WATCH_NAMESPACES"] == "*"


def test_a_digest_is_preferred_to_a_tag() -> None:
    digest = f"sha256:{'a' * 64}"
    values = {"trainImage": {"repository": "r.example/train", "tag": "x", "digest": digest}}
    assert operator_environment(values)["EYAS_OPERATOR_TRAIN_IMAGE"] == f"r.example/train@{digest}"


def test_one_copy_has_no_budget_that_could_only_forbid_a_drain() -> None:
    spec = only(rendered(), "PodDisruptionBudget")["spec"]
    assert spec["minAvailable"] == 1
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "copies that cannot get ready never block a drain"
    assert not of_kind(rendered({"replicaCount": 1}), "PodDisruptionBudget")


def test_the_master_of_the_pool_is_never_two() -> None:
    spec = of_kind(rendered(POOL), "Deployment")["eyas-pool-master"]["spec"]
    # A second, empty master beside the first would be another pool.
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_a_store_node_gets_more_time_to_stop_than_it_takes_to_drain() -> None:
    values = {"mooncakePool": {"enabled": True, "nodes": {"drainSeconds": 100, "segmentGiB": 3}}}
    spec = of_kind(rendered(values), "Deployment")["eyas-pool-node"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert "--drain-seconds=100" in container["args"]
    assert spec["terminationGracePeriodSeconds"] > 100
    assert f"--segment-bytes={3 * 2**30}" in container["args"]
    assert container["resources"]["limits"]["memory"] == "4Gi"


def test_the_key_is_64_hexadecimal_digits_in_a_secret_that_outlives_the_chart() -> None:
    import base64

    secret = only(rendered(), "Secret")
    key = base64.b64decode(secret["data"]["current"])
    assert re.fullmatch(rb"[0-9a-f]{64}", key)
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert only(rendered(), "Secret")["data"] != secret["data"], "it is random"


def test_a_key_of_ones_own_replaces_the_charts() -> None:
    manifests = rendered({"operatorKey": {"existingSecret": "mine"}})
    assert not of_kind(manifests, "Secret")
    volumes = only(manifests, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {volume["name"]: volume for volume in volumes}["operator-key"]["secret"]["secretName"] == "mine"


def test_nothing_has_a_finalizer_that_could_strand_an_uninstall() -> None:
    for entry in rendered(EVERYTHING):
        assert "finalizers" not in entry["metadata"]
        annotations: Manifest = entry["metadata"].get("annotations", {})
        assert not {"pre-delete", "post-delete"} & set(annotations.get("helm.sh/hook", "").split(","))
