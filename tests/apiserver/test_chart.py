"""The chart installed by Helm on a real API server: every object is taken, upgrades keep the key, uninstalling strands
no job.
"""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.helm import CHART, MONITORING, POOL, Manifest, helm, rendered
from support.kube_apiserver import KubeApiServer, running
from support.kube_operator import JOBS, submit
from support.waiting import wait_until

pytestmark = [pytest.mark.apiserver, pytest.mark.chart]
DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/disaggtrainingjobs.eyas.dev"
PROMETHEUS = ("servicemonitors", "ServiceMonitor"), ("prometheusrules", "PrometheusRule")


class Release:
    """One release of the chart."""

    def __init__(self, server: KubeApiServer, namespace: str) -> None:
        self.server = server
        self.namespace = namespace
        self._kubeconfig = server.kubeconfig(namespace=namespace)

    def helm(self, *words: str, values: dict[str, Any] | None = None) -> str:
        """One Helm command that must succeed."""
        where = ("--kubeconfig", str(self._kubeconfig), "--namespace", self.namespace)
        done = helm(*words, *where, values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def upgrade(self, values: dict[str, Any] | None = None, chart: Path = CHART) -> str:
        """Install or upgrade."""
        return self.helm("upgrade", "--install", "eyas", str(chart), values=values or {})

    def key(self) -> dict[str, str]:
        """What the operator's key Secret holds."""
        secret = self.server.must("GET", f"/api/v1/namespaces/{self.namespace}/secrets/eyas-operator-key")
        return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiServer]:
    """An API server of its own: here the chart, and nobody else, brings the job's kind."""
    with running(tmp_path_factory.mktemp("chart")) as server:
        yield server


@pytest.fixture
def release(server: KubeApiServer) -> Iterator[Release]:
    made = Release(server, server.namespace("chart"))
    yield made
    # The definition and the roles for people are the cluster's: the next release of another namespace makes its own.
    helm(
        "uninstall", "eyas", "--kubeconfig", str(made._kubeconfig), "--namespace", made.namespace, "--ignore-not-found"
    )
    server.ask("DELETE", DEFINITION)
    wait_until(lambda: server.ask("GET", DEFINITION).status == 404, "the definition is gone")


def define(server: KubeApiServer, plural: str, kind: str) -> None:
    """A definition that takes anything, in place of the Prometheus operator's."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    spec = {
        "group": "monitoring.coreos.com", "scope": "Namespaced", "versions": [version],
        "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
    }  # fmt: skip
    manifest = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.monitoring.coreos.com",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in"},
        },
        "spec": spec,
    }  # fmt: skip
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.monitoring.coreos.com"
    server.must("PATCH", f"{path}?fieldManager=t&force=true", manifest, content="application/apply-patch+yaml")


def collection(server: KubeApiServer, manifest: Manifest, namespace: str) -> str:
    """Where the API server takes an object of that kind."""
    version = manifest["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    kinds = {it["kind"]: it for it in server.must("GET", root)["resources"] if "/" not in it["name"]}
    kind = kinds[manifest["kind"]]
    return f"{root}/namespaces/{namespace}/{kind['name']}" if kind["namespaced"] else f"{root}/{kind['name']}"


@pytest.mark.parametrize("values", [{}, POOL], ids=["default", "pool"])
def test_no_object_has_a_field_that_the_api_does_not_know(server: KubeApiServer, values: dict[str, Any]) -> None:
    """Helm sends such objects, and the API server drops the field with a warning that nobody reads."""
    namespace = server.namespace("strict")
    for manifest in rendered(values):
        path = collection(server, manifest, namespace)
        body = manifest | {"metadata": {key: it for key, it in manifest["metadata"].items() if key != "namespace"}}
        answer = server.ask("POST", f"{path}?dryRun=All&fieldValidation=Strict", body)
        assert answer.status == 201, f"{manifest['kind']} {manifest['metadata']['name']}: {answer.message}"


def test_the_default_install_is_taken_as_it_is(release: Release) -> None:
    said = release.upgrade()
    assert "kubectl eyas status" in said
    path = f"/apis/apps/v1/namespaces/{release.namespace}/deployments/eyas-operator"
    assert release.server.must("GET", path)["spec"]["replicas"] == 2
    submit(release.server, release.namespace)


def test_an_install_of_everything_is_taken_as_well(release: Release) -> None:
    for plural, kind in PROMETHEUS:
        define(release.server, plural, kind)
    other = release.server.namespace("watched")
    release.upgrade({**POOL, **MONITORING, "watchNamespaces": [release.namespace, other]})
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{other}/rolebindings"
    assert [it["metadata"]["name"] for it in release.server.must("GET", roles)["items"]] == ["eyas-operator"]


def test_the_key_is_kept_through_upgrades_and_rotated_only_when_asked(release: Release) -> None:
    release.upgrade()
    first = release.key()
    assert set(first) == {"current"}
    release.upgrade({"replicaCount": 3})
    assert release.key() == first
    release.upgrade({"operatorKey": {"rotation": 1}})
    second = release.key()
    assert second["previous"] == first["current"] != second["current"]
    release.upgrade({"operatorKey": {"rotation": 1}, "replicaCount": 1})
    assert release.key() == second, "the same rotation again rotates nothing"


def test_uninstalling_leaves_jobs_definition_and_key_and_an_install_takes_them_over(release: Release) -> None:
    release.upgrade()
    job, key = submit(release.server, release.namespace), release.key()
    release.helm("uninstall", "eyas")
    path = f"{JOBS.format(release.namespace)}/{job.name}"
    assert release.server.must("GET", path)["metadata"]["uid"] == job.uid
    deployments = f"/apis/apps/v1/namespaces/{release.namespace}/deployments/eyas-operator"
    assert release.server.ask("GET", deployments).body.get("metadata", {}).get("deletionTimestamp", "gone")
    release.upgrade()
    assert release.key() == key
    release.server.must("DELETE", path)
    assert release.server.ask("GET", path).status == 404, "no finalizer holds it"


def test_every_setting_may_change_in_an_upgrade_of_a_running_release(release: Release) -> None:
    # What cannot change in place (selectors, names of services of sets) must not depend on any value.
    release.upgrade(POOL)
    digest = f"sha256:{'b' * 64}"
    pool = {"enabled": True, "nodes": {"replicas": 3, "segmentGiB": 8}, "allowedNamespaces": ["x"]}
    release.upgrade(
        {
            "mooncakePool": pool, "image": {"digest": digest}, "runtimeImage": {"tag": "next"}, "logLevel": "DEBUG",
            "podLabels": {"team": "a"}, "replicaCount": 1, "metrics": {"port": 9090},
            "networkPolicy": {"enabled": False},
            "watchNamespaces": ["*"], "serviceAccount": {"name": "other"}, "rbac": {"userRoles": False},
        }
    )  # fmt: skip
