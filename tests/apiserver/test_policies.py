"""The sample policies for platform teams, on a real API server: what they refuse, and whom they leave alone."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from eyas_operator.api.crd import crd
from support.kube_apiserver import MERGE, KubeApiServer, Reply
from support.kube_operator import JOBS
from support.operator_world import a_body
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
SAMPLE = Path(__file__).parents[2] / "examples" / "policies" / "images.yaml"
POLICIES = "/apis/admissionregistration.k8s.io/v1"
ROLES = ("producers", "consumers", "services", "nodes")
"""Whoever has a template in a job's spec."""


def with_image(role: str, image: str) -> dict[str, Any]:
    """A job that names an image for one role."""
    template = {"spec": {"containers": [{"name": "main", "image": image}]}}
    if role == "nodes":
        return a_body(store={"backend": "Mooncake", "mooncake": {"nodes": {"replicas": 1, "template": template}}})
    return a_body(**{role: {"template": template} | ({} if role == "services" else {"replicas": 1})})


def tried(server: KubeApiServer, namespace: str, body: dict[str, Any]) -> Reply:
    """The answer to a job that is not kept."""
    return server.ask("POST", f"{JOBS.format(namespace)}?dryRun=All", body | {"metadata": {"name": "tried"}})


def templates(schema: dict[str, Any], name: str = "") -> set[str]:
    """Names of all parts of a schema that have a template."""
    parts = schema.get("properties", {})
    return ({name} if "template" in parts else set()).union(*(templates(part, key) for key, part in parts.items()))


def test_every_template_of_the_definition_is_tried_here() -> None:
    version = crd()["spec"]["versions"][0]
    assert templates(version["schema"]["openAPIV3Schema"]["properties"]["spec"]) == set(ROLES)


@pytest.fixture(scope="module")
def labelled(jobs: KubeApiServer) -> str:
    """A namespace in which the sample holds."""
    for manifest in yaml.safe_load_all(SAMPLE.read_text()):
        kinds = (
            "validatingadmissionpolicies" if "validations" in manifest["spec"] else "validatingadmissionpolicybindings"
        )
        jobs.must("POST", f"{POLICIES}/{kinds}?fieldValidation=Strict", manifest)
    namespace = jobs.namespace("policies")
    label = {"metadata": {"labels": {"eyas.dev/approved-images": "enforce"}}}
    jobs.must("PATCH", f"/api/v1/namespaces/{namespace}", label, content=MERGE)
    wrong = with_image("producers", "elsewhere/eyas-runtime:1")
    wait_until(lambda: tried(jobs, namespace, wrong).status == 422, "the policy holds", seconds=60)
    return namespace


@pytest.mark.parametrize("role", ROLES)
def test_image_that_is_not_approved_is_refused_for_every_role(jobs: KubeApiServer, labelled: str, role: str) -> None:
    answer = tried(jobs, labelled, with_image(role, "elsewhere/eyas-runtime:1"))
    assert answer.status == 422
    assert "it may begin with eyas-runtime: or eyas-train:" in answer.message


@pytest.mark.parametrize("body", [a_body(), *(with_image(role, "eyas-runtime:0.1.0") for role in ROLES)])
def test_approved_images_and_jobs_that_name_none_are_taken(
    jobs: KubeApiServer, labelled: str, body: dict[str, Any]
) -> None:
    assert tried(jobs, labelled, body).status == 201


def test_namespace_without_the_label_is_left_alone(jobs: KubeApiServer, labelled: str) -> None:
    other = jobs.namespace("unlabelled")
    assert other != labelled
    assert tried(jobs, other, with_image("producers", "elsewhere/eyas-runtime:1")).status == 201
