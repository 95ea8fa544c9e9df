"""The cluster is what the other tests take for granted."""

import pytest

from support.cluster_job import quickstart
from support.kubectl import Kubectl, Refused

pytestmark = pytest.mark.e2e

PRIVILEGED = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "privileged"},
    "spec": {"containers": [{"name": "main", "image": "eyas-runtime:0.1.0", "securityContext": {"privileged": True}}]},
}


def test_three_nodes_are_ready_and_have_fake_devices(kubectl: Kubectl) -> None:
    nodes = kubectl.items("nodes")
    ready = [c["status"] for node in nodes for c in node["status"]["conditions"] if c["type"] == "Ready"]
    assert ready == ["True"] * 3
    for node in nodes:
        assert "taints" not in node["spec"], "a node that runs no pods of jobs"
        assert (node["status"]["allocatable"]["nvidia.com/gpu"], node["status"]["allocatable"]["rdma/hca"]) == (
            "8",
            "8",
        )


def test_every_node_has_the_images(kubectl: Kubectl) -> None:
    for node in kubectl.items("nodes"):
        names = {name for image in node["status"]["images"] for name in image["names"] or ()}
        for image in ("eyas-operator", "eyas-runtime", "eyas-train"):
            assert any(f"/{image}:" in name for name in names), f"{image} is not on {node['metadata']['name']}"


def test_pod_security_restricted_is_enforced(kubectl: Kubectl) -> None:
    with pytest.raises(Refused, match="violates PodSecurity"):
        kubectl.apply(PRIVILEGED, "--dry-run=server")


def test_claims_of_models_and_data_are_bound_and_a_shared_class_exists(kubectl: Kubectl) -> None:
    phases = {claim["metadata"]["name"]: claim["status"]["phase"] for claim in kubectl.items("pvc")}
    assert (phases["models"], phases["data"]) == ("Bound", "Bound")
    assert {"standard", "shared"} <= {it["metadata"]["name"] for it in kubectl.items("storageclasses")}


def test_the_operator_leads_and_its_resource_is_served(kubectl: Kubectl) -> None:
    deployment = kubectl.get("deployment", "eyas-operator")
    assert deployment["status"]["readyReplicas"] == deployment["spec"]["replicas"]
    assert kubectl.get("lease", "eyas-operator")["spec"]["holderIdentity"].startswith("eyas-operator-")
    kubectl.apply(quickstart("accepted"), "--dry-run=server")
